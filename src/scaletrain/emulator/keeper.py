"""Keeps the machines as the API says: boots what was launched, stops what was stopped, filters as the groups say."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scaletrain.emulator import firewall, metadata
from scaletrain.emulator.account import Account, user_data_of
from scaletrain.emulator.api import DIES_AT_BOOT, Gate
from scaletrain.emulator.machines import Boot, Machines
from scaletrain.errors import ClusterError, ScaletrainError
from scaletrain.log import get_logger

_log = get_logger(__name__)
_LOOK_AGAIN_S = 1.0


class Keeper:
    """One thread that compares, a pool that boots and stops; `user` gets the key on images that do not tell theirs."""

    def __init__(self, machines: Machines, account: Account, gate: Gate, *, user: str, services: Sequence[str]) -> None:
        self._machines = machines
        self._account = account
        self._gate = gate
        self._user = user
        self._services = services
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="machine")
        self._busy: set[str] = set()
        self._filters: dict[str, str] = {}
        self._notices: dict[str, metadata.Notice] = {}

    def start(self) -> None:
        """Begin to keep; goes on until the process ends."""
        threading.Thread(target=self._keep, daemon=True, name="keeper").start()

    def instances(self) -> list[Any]:
        """Return moto's instances, terminated ones too."""
        reservations = list(self._account.backend("ec2").reservations.values())
        return [instance for reservation in reservations for instance in list(reservation.instances)]

    def find(self, instance_id: str) -> Any:
        """Return moto's instance of an id."""
        for instance in self.instances():
            if instance.id == instance_id:
                return instance
        raise ClusterError(f"no instance {instance_id}; there are {[each.id for each in self.instances()]}")

    def subject_at(self, address: str) -> metadata.Subject | None:
        """Return the running machine at an address, for the metadata service."""
        for instance in self.instances():
            if instance.state == "running" and address in (instance.private_ip, instance.public_ip):
                return metadata.Subject(instance, self._notices.get(instance.id))
        return None

    def advise_rebalance(self, instance_id: str) -> None:
        """Tell a spot machine that it is more likely than before to be taken."""
        self._check_spot(instance_id)
        self._notices.setdefault(instance_id, metadata.Notice(time.time()))

    def preempt(self, instance_id: str, notice_s: float) -> None:
        """Give a spot machine notice now, and take it `notice_s` later."""
        self._check_spot(instance_id)
        now = time.time()
        self._notices[instance_id] = metadata.Notice(now, now + notice_s)
        timer = threading.Timer(notice_s, self._take, (instance_id, "Server.SpotInstanceTermination"))
        timer.daemon = True
        timer.start()

    def _check_spot(self, instance_id: str) -> None:
        if self.find(instance_id).lifecycle != "spot":
            raise ClusterError(f"{instance_id} is on demand: EC2 takes spot machines only; use terminate_instances")

    def _take(self, instance_id: str, reason: str) -> None:
        from moto.ec2.models.instances import StateReason

        instance = self.find(instance_id)
        if instance.state == "running":
            self._account.backend("ec2").terminate_instances([instance_id])
            instance.state_reason = StateReason(f"{reason}: the machine was taken back", reason)
            self._gate.changed.set()

    def _keep(self) -> None:
        while True:
            self._gate.changed.wait(_LOOK_AGAIN_S)
            self._gate.changed.clear()
            instances = self.instances()
            for instance in instances:
                if instance.id in self._busy or self._is_as_wanted(instance):
                    continue
                self._busy.add(instance.id)
                self._pool.submit(self._converge, instance)
            self._refresh_filters(instances)

    def _is_as_wanted(self, instance: Any) -> bool:
        on = instance.id in self._machines.names()
        if instance.id in self._gate.dead_on_arrival:
            return bool(instance.state != "running")
        return on is bool(instance.state == "running")

    def _converge(self, instance: Any) -> None:
        try:
            if instance.id in self._gate.dead_on_arrival:
                self._take(instance.id, DIES_AT_BOOT)
            elif instance.state == "running":
                self._machines.boot(self._boot_of(instance))
            else:
                self._filters.pop(instance.id, None)
                self._machines.stop(instance.id)
                if instance.state == "terminated":
                    self._machines.remove_disk(instance.id)
        except (ScaletrainError, OSError):  # the others go on; it is tried again, and its waiters see it missing
            _log.exception("%s: could not be made %s", instance.id, instance.state)
            time.sleep(_LOOK_AGAIN_S)
        finally:
            self._busy.discard(instance.id)
            self._gate.changed.set()

    def _boot_of(self, instance: Any) -> Boot:
        ec2 = self._account.backend("ec2")
        keys = []
        if instance.key_name:
            user = self._account.image_user(instance.image_id) or self._user
            keys.append((user, str(ec2.key_pairs[instance.key_name].public_key).strip()))
        user_data = user_data_of(instance)
        if user_data and not user_data.startswith(b"#!"):
            _log.warning("%s: its user data is no script (it does not begin with #!), so it is not run", instance.id)
            user_data = b""
        texts = self._filter_texts(self.instances())
        return Boot(
            name=instance.id,
            hostname=f"ip-{instance.private_ip.replace('.', '-')}",
            address=instance.private_ip,
            public_address=instance.public_ip or "",
            keys=keys,
            first_boot=user_data,
            firewall=texts.get(instance.id, ""),
        )

    def _refresh_filters(self, instances: Sequence[Any]) -> None:
        for instance_id, text in self._filter_texts(instances).items():
            if self._filters.get(instance_id) != text and self._machines.set_firewall(instance_id, text):
                self._filters[instance_id] = text

    def _filter_texts(self, instances: Sequence[Any]) -> dict[str, str]:
        groups = {group.id: group for group in self._account.backend("ec2").describe_security_groups()}
        running = [instance for instance in instances if instance.state == "running"]
        members: dict[str, list[str]] = defaultdict(list)
        for instance in running:
            for group_id in _group_ids(instance):
                members[group_id].append(instance.private_ip)
        texts = {}
        for instance in running:
            own = [groups[each] for each in _group_ids(instance) if each in groups]
            incoming = [rule for group in own for rule in _rules(group.ingress_rules, members)]
            outgoing = [rule for group in own for rule in _rules(group.egress_rules, members)]
            texts[instance.id] = firewall.filter_text(incoming, outgoing, services=self._services)
        return texts


def _group_ids(instance: Any) -> list[str]:
    groups = [*instance.security_groups, *(group for nic in instance.nics.values() for group in nic.group_set)]
    return list(dict.fromkeys(group.id for group in groups))


def _rules(rules: Sequence[Any], members: dict[str, list[str]]) -> list[firewall.Rule]:
    """Translate moto's rules; those for IPv6 and for prefix lists have no source here, so they admit nothing."""
    found = []
    for rule in rules:
        sources = [rule.ip_range["CidrIp"]] if (rule.ip_range or {}).get("CidrIp") else []
        sources += members.get((rule.source_group or {}).get("GroupId", ""), [])
        found.append(firewall.Rule(str(rule.ip_protocol), rule.from_port, rule.to_port, tuple(sorted(sources))))
    return found
