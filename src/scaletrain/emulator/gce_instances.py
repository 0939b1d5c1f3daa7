"""Compute Engine's machines as they should be: their keys, scripts and packet filters; and how they are taken away."""

import threading
from collections.abc import Sequence

from scaletrain.emulator.cloud_process import API_ADDRESS, METADATA_ADDRESS
from scaletrain.emulator.gce_compute import ON, metadata_of
from scaletrain.emulator.gce_firewall import filter_text
from scaletrain.emulator.gce_launch import is_spot
from scaletrain.emulator.google_cloud import GoogleCloud
from scaletrain.emulator.google_request import Resource
from scaletrain.emulator.keeper import Wanted
from scaletrain.emulator.machines import Boot
from scaletrain.errors import ClusterError

QUIET = {"preempted": "FALSE", "maintenance-event": "NONE"}


class Instances:
    """What the keeper and the metadata server ask of the cloud; `gateway` is always reachable from machines."""

    def __init__(self, cloud: GoogleCloud, *, gateway: str) -> None:
        self._cloud = cloud
        self._compute = cloud.compute
        self._services = (METADATA_ADDRESS, gateway)
        self._notices: dict[str, dict[str, str]] = {}
        self.told = threading.Condition()  # somebody may wait for a change of what the metadata server says

    def wanted(self) -> list[Wanted]:
        """What each machine should be."""
        with self._cloud.lock:
            found = []
            instances = [*self._compute.instances.values()]
            for each in instances:
                name, on = each["name"], each["status"] in ON
                text = self._filter_text(each, instances) if on else ""
                kept, awaited = name not in self._compute.deleting, each["status"] not in ("RUNNING", "TERMINATED")
                found.append(Wanted(name, on=on, keep_disk=kept, firewall=text, awaited=awaited))
        with self.told:
            self.told.notify_all()
        return found

    def settled(self, wanted: Wanted) -> None:
        """Note that a machine is as was wanted, if that is still so."""
        with self._cloud.lock:
            instance = self._compute.instances.get(wanted.name)
            if instance is not None and (instance["status"] in ON) is wanted.on:
                self._compute.settled(wanted.name)

    def boot_of(self, name: str) -> Boot:
        """What a machine is started with: its guest agent reads keys and scripts from the metadata."""
        with self._cloud.lock:
            instance = self._compute.find(name)
            if instance["status"] in ON:  # it may have been stopped or deleted since the keeper looked
                instance["status"] = "STAGING"
            self._notices.pop(name, None)
            own, common = metadata_of(instance["metadata"].get("items", [])), metadata_of(self._compute.common_metadata)
            interface = instance["networkInterfaces"][0]
            return Boot(
                name=name,
                address=interface["networkIP"],
                public_address=(interface.get("accessConfigs") or [{}])[0].get("natIP", ""),
                keys=_keys(own, common),
                start_script=(own.get("startup-script") or common.get("startup-script", "")).encode(),
                firewall=self._filter_text(instance, [*self._compute.instances.values()]),
            )

    def at(self, address: str) -> Resource | None:
        """Return the running machine at an address."""
        with self._cloud.lock:
            for each in self._compute.instances.values():
                interface = each["networkInterfaces"][0]
                public = [config["natIP"] for config in interface.get("accessConfigs", [])]
                if each["status"] in ON and address in (interface["networkIP"], *public):
                    return each
        return None

    def caller_name(self, address: str, member: str) -> str:
        """Tell who made a call: the machine that it came from, and whose rights it has."""
        instance, email = self.at(address), member.partition(":")[2]
        return f"{instance['name']} ({email})" if instance else email or member

    def notice(self, name: str) -> dict[str, str]:
        """Return what the metadata server says of a machine's end."""
        return self._notices.get(name, QUIET)

    # --- What happens to machines ------------------------------------------------------------------------------------

    def preempt(self, name: str, notice_s: float) -> None:
        """Tell a Spot VM now, and take it when the notice is over."""
        with self._cloud.lock:
            instance = self._compute.find(name)
            if not is_spot(instance):
                raise ClusterError(f"{name} is no Spot VM: Google preempts those only; delete it instead")
            born = instance["id"]
        self.tell(name, "preempted", "TRUE")
        timer = threading.Timer(notice_s, self._take, (name, born))
        timer.daemon = True
        timer.start()

    def tell(self, name: str, item: str, value: str) -> None:
        """Let the metadata server say something of a machine."""
        self._notices[name] = {**self.notice(name), item: value}
        with self.told:
            self.told.notify_all()

    def _take(self, name: str, born: str) -> None:
        with self._cloud.lock:
            instance = self._compute.instances.get(name)
            if instance is None or instance["id"] != born or instance["status"] not in ON:
                return
            instance["statusMessage"] = "Instance was preempted."
            self._compute.power_off(name, delete=instance["scheduling"].get("instanceTerminationAction") == "DELETE")

    def _filter_text(self, instance: Resource, others: Sequence[Resource]) -> str:
        on = [each for each in others if each["status"] in ON]
        return filter_text(self._cloud.network, instance, on, api=API_ADDRESS, always=self._services)


def _keys(own: dict[str, str], common: dict[str, str]) -> list[tuple[str, str]]:
    """The SSH keys of a machine's metadata and the project's, none with OS Login."""
    if own.get("enable-oslogin", common.get("enable-oslogin", "")).lower() == "true":
        return []
    lines = own.get("ssh-keys", "").splitlines()
    if own.get("block-project-ssh-keys", "").lower() != "true":
        lines += common.get("ssh-keys", "").splitlines()
    pairs = [line.partition(":") for line in lines if ":" in line]
    return [(user.strip(), key.strip()) for user, _, key in pairs]
