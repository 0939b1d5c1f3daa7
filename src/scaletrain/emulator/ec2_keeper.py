"""EC2's machines as they should be, told from moto's instances: their keys, user data, groups, and spot notices."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from scaletrain.emulator import ec2_metadata, firewall
from scaletrain.emulator.aws_account import Account, user_data_of
from scaletrain.emulator.aws_api import DIES_AT_BOOT, Gate
from scaletrain.emulator.keeper import Wanted
from scaletrain.emulator.machines import Boot
from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

_log = get_logger(__name__)


class Instances:
    """moto's instances as machines; `user` gets the key on images that do not tell theirs."""

    def __init__(self, account: Account, gate: Gate, *, user: str, services: Sequence[str]) -> None:
        self._account = account
        self._gate = gate
        self._user = user
        self._services = services
        self._notices: dict[str, ec2_metadata.Notice] = {}

    def all(self) -> list[Any]:
        """Return moto's instances, terminated ones too."""
        reservations = list(self._account.backend("ec2").reservations.values())
        return [instance for reservation in reservations for instance in list(reservation.instances)]

    def find(self, instance_id: str) -> Any:
        """Return moto's instance of an id."""
        for instance in self.all():
            if instance.id == instance_id:
                return instance
        raise ClusterError(f"no instance {instance_id}; there are {[each.id for each in self.all()]}")

    def subject_at(self, address: str) -> ec2_metadata.Subject | None:
        """Return the running machine at an address, for the metadata service."""
        for instance in self.all():
            if instance.state == "running" and address in (instance.private_ip, instance.public_ip):
                return ec2_metadata.Subject(instance, self._notices.get(instance.id))
        return None

    def advise_rebalance(self, name: str) -> None:
        """Tell a spot machine that it is more likely than before to be taken."""
        self._check_spot(name)
        self._notices.setdefault(name, ec2_metadata.Notice(time.time()))

    def preempt(self, name: str, notice_s: float) -> None:
        """Give a spot machine notice now, and take it `notice_s` later."""
        self._check_spot(name)
        now = time.time()
        self._notices[name] = ec2_metadata.Notice(now, now + notice_s)
        timer = threading.Timer(notice_s, self._take, (name, "Server.SpotInstanceTermination"))
        timer.daemon = True
        timer.start()

    def wanted(self) -> list[Wanted]:
        """What each machine should be; those that die at boot do so here."""
        for instance_id in list(self._gate.dead_on_arrival):
            self._take(instance_id, DIES_AT_BOOT)
        instances = self.all()
        texts = self._filter_texts(instances)
        return [
            Wanted(
                each.id,
                on=each.state == "running",
                keep_disk=each.state != "terminated",
                firewall=texts.get(each.id, ""),
            )
            for each in instances
        ]

    def boot_of(self, instance_id: str) -> Boot:
        """What a machine is started with."""
        instance = self.find(instance_id)
        keys = []
        if instance.key_name:
            user = self._account.image_user(instance.image_id) or self._user
            key = self._account.backend("ec2").key_pairs[instance.key_name]
            keys.append((user, str(key.public_key).strip()))
        user_data = user_data_of(instance)
        if user_data and not user_data.startswith(b"#!"):
            _log.warning("%s: its user data is no script (it does not begin with #!), so it is not run", instance.id)
            user_data = b""
        return Boot(
            name=instance.id,
            hostname=hostname_of(instance),
            address=instance.private_ip,
            public_address=instance.public_ip or "",
            keys=keys,
            first_boot=user_data,
            firewall=self._filter_texts(self.all()).get(instance.id, ""),
        )

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


def hostname_of(instance: Any) -> str:
    """Return the name that a machine gives itself."""
    return f"ip-{instance.private_ip.replace('.', '-')}"


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
