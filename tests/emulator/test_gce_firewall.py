"""Firewall rules of a network hold between machines, from the laptop, and from somebody else's machine."""

import functools
from typing import Any

import pytest
from gce_launching import SCOPES, launch, make_account, metadata
from launching import opens

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.emulator.gce_firewall import filter_text
from scaletrain.emulator.gce_network import Network


def rule(gce: EmulatedCloud, name: str, **fields: Any) -> None:
    gce.call("compute", "firewalls.insert", body={"name": name, "network": "global/networks/default", **fields})


@pytest.fixture(scope="module")
def guarded(gce: EmulatedCloud) -> list[Instance]:
    """Two machines with a tag: SSH from the laptop, everything among them, nothing else, whatever the default is."""
    tagged = {"targetTags": ["guarded"]}
    everything, ssh = [{"IPProtocol": "all"}], [{"IPProtocol": "tcp", "ports": ["22"]}]
    laptop = [f"{gce.laptop_address}/32"]
    rule(gce, "guarded-ssh", priority=100, sourceRanges=laptop, allowed=ssh, **tagged)
    rule(gce, "guarded-within", priority=100, sourceTags=["guarded"], allowed=everything, **tagged)
    rule(gce, "guarded-shut", priority=200, sourceRanges=["0.0.0.0/0"], denied=everything, **tagged)
    pair = [launch(gce, tags={"items": ["guarded"]}) for _ in range(2)]
    serve(gce, *pair)
    return pair


def serve(gce: EmulatedCloud, *machines: Instance) -> None:
    """Let something listen on port 8000."""
    for each in machines:
        gce.on_machine(each, ["sh", "-c", "cd /tmp && /usr/bin/python3 -m http.server 8000 >/dev/null 2>&1 &"])
        at_home = functools.partial(gce.on_machine, each)
        wait_for(lambda there=at_home: opens(there, "127.0.0.1", 8000), "port 8000")


def test_a_denial_of_higher_priority_beats_the_default_rules(gce: EmulatedCloud, guarded: list[Instance]) -> None:
    """The laptop gets in by SSH only, the machines reach each other, a stranger gets no answer."""
    first, second = guarded
    assert opens(gce.laptop, first.public_address, 22)
    assert not opens(gce.laptop, first.public_address, 8000)
    assert opens(functools.partial(gce.on_machine, second), first.address, 8000)
    assert not opens(gce.third_machine, first.address, 22)
    untagged = launch(gce)
    assert not opens(functools.partial(gce.on_machine, untagged), first.address, 8000)
    assert opens(functools.partial(gce.on_machine, first), untagged.address, 22)


def test_the_default_network_admits_ssh_from_everywhere(gce: EmulatedCloud) -> None:
    """And everything within its own ranges: what a new project has, until somebody changes it."""
    machine = launch(gce)
    serve(gce, machine)
    assert opens(gce.third_machine, machine.address, 22)
    assert not opens(gce.third_machine, machine.address, 8000)
    assert not opens(gce.laptop, machine.public_address, 8000)


def test_a_rule_added_later_holds_at_once(gce: EmulatedCloud, guarded: list[Instance]) -> None:
    """And is gone when it is disabled or deleted."""
    first, _ = guarded
    fields = {"priority": 50, "sourceRanges": ["0.0.0.0/0"], "targetTags": ["guarded"]}
    rule(gce, "guarded-open", allowed=[{"IPProtocol": "tcp", "ports": ["7000-9000"]}], **fields)
    wait_for(lambda: opens(gce.third_machine, first.address, 8000), "port 8000 is open to the world")
    gce.call("compute", "firewalls.patch", firewall="guarded-open", body={"disabled": True})
    wait_for(lambda: not opens(gce.third_machine, first.address, 8000), "port 8000 is shut again")
    gce.call("compute", "firewalls.delete", firewall="guarded-open")


def test_networks_are_apart(gce: EmulatedCloud, guarded: list[Instance]) -> None:
    """A machine of another network is not reached at its private address, whatever the rules admit."""
    gce.call("compute", "networks.insert", body={"name": "apart", "autoCreateSubnetworks": False})
    subnet = {"name": "apart", "network": "global/networks/apart", "ipCidrRange": "10.200.0.0/24"}
    gce.call("compute", "subnetworks.insert", region=gce.region, body=subnet)
    rule(gce, "apart-open", network="global/networks/apart", allowed=[{"IPProtocol": "all"}])
    access = [{"type": "ONE_TO_ONE_NAT"}]
    nic = {"subnetwork": f"regions/{gce.region}/subnetworks/apart", "accessConfigs": access}
    apart = launch(gce, networkInterfaces=[nic])
    assert apart.address.startswith("10.200.0.")
    assert not opens(functools.partial(gce.on_machine, guarded[0]), apart.address, 22)
    assert opens(gce.laptop, apart.public_address, 22)


def test_without_a_public_address_the_apis_need_private_google_access(gce: EmulatedCloud) -> None:
    """The metadata server answers in any case."""
    email = make_account(gce, "inside")
    nic = {"network": "global/networks/default"}
    machine = launch(gce, networkInterfaces=[nic], serviceAccounts=[{"email": email, "scopes": SCOPES}])
    there = functools.partial(gce.on_machine, machine)
    assert machine.public_address == ""
    assert metadata(gce, machine, "instance/service-accounts/default/token")[0] == 200
    assert not opens(there, "storage.googleapis.com", 443)
    access = {"privateIpGoogleAccess": True}
    where = {"region": gce.region, "subnetwork": "default"}
    gce.call("compute", "subnetworks.setPrivateIpGoogleAccess", **where, body=access)
    wait_for(lambda: opens(there, "storage.googleapis.com", 443), "the APIs are reached")


def test_rules_become_lines_in_the_order_of_their_priorities() -> None:
    """Of equal ones the denial comes first; a rule for other tags and one for IPv6 say nothing."""
    network = Network("p", ["r"], lambda *_: {})
    for name, fields in {
        "allow": {"allowed": [{"IPProtocol": "udp", "ports": [53]}], "sourceRanges": ["10.1.0.0/16", "::/0"]},
        "deny": {"denied": [{"IPProtocol": "icmp"}], "sourceRanges": ["10.2.0.0/16"]},
        "others": {"allowed": [{"IPProtocol": "all"}], "targetTags": ["x"]},
    }.items():
        network._add_rule({"name": name, "priority": 9, **fields})
    interface = {"network": "global/networks/default", "networkIP": "10.128.0.2", "accessConfigs": [{}]}
    instance = {"networkInterfaces": [interface], "zone": "zones/r-a"}
    text = filter_text(network, instance, [instance], api="198.51.100.1", always=["169.254.169.254"])
    lines = [line.strip() for line in text.splitlines() if "saddr" in line]
    assert lines[:2] == [
        "ip saddr 10.2.0.0/16 ip protocol icmp drop",
        "ip saddr 10.1.0.0/16 udp dport 53 accept",
    ]
