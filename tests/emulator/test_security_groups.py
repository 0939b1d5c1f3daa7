"""Security groups hold between machines, from the laptop and from somebody else's machine."""

import functools

import pytest
from launching import group, launch, opens, ssh, ssh_from

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance


@pytest.fixture(scope="module")
def guarded(cloud: EmulatedCloud) -> tuple[str, list[Instance]]:
    """Two machines in a group that admits SSH from the laptop and everything from itself, each serving port 8000."""
    group_id = group(cloud, "guarded", ssh_from(f"{cloud.laptop_address}/32"))
    itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
    cloud.call("ec2", "authorize_security_group_ingress", GroupId=group_id, IpPermissions=[itself])
    pair = launch(cloud, 2, SecurityGroupIds=[group_id])
    serve = "cd /tmp && /usr/bin/python3 -m http.server 8000 >/dev/null 2>&1 &"
    for each in pair:
        cloud.on_machine(each, ["sh", "-c", serve])
        at_home = functools.partial(cloud.on_machine, each)
        wait_for(lambda there=at_home: opens(there, "127.0.0.1", 8000), "port 8000")
    return group_id, pair


def test_the_laptop_gets_in_by_ssh_only(cloud: EmulatedCloud, guarded: tuple[str, list[Instance]]) -> None:
    """The rule names its address and port 22."""
    _, (first, _) = guarded
    assert ssh(cloud, first, "echo in").stdout.strip() == "in"
    assert not opens(cloud.laptop, first.public_address, 8000)


def test_machines_of_a_group_reach_each_other(cloud: EmulatedCloud, guarded: tuple[str, list[Instance]]) -> None:
    """The rule names the group itself, whoever is in it."""
    _, (first, second) = guarded
    assert opens(lambda command: cloud.on_machine(first, command), second.address, 8000)


def test_somebody_elses_machine_gets_no_answer(cloud: EmulatedCloud, guarded: tuple[str, list[Instance]]) -> None:
    """Nothing at all, on any port that something listens on."""
    _, (first, _) = guarded
    assert not opens(cloud.third_machine, first.address, 22)
    assert not opens(cloud.third_machine, first.address, 8000)


def test_a_rule_added_later_holds_at_once(cloud: EmulatedCloud, guarded: tuple[str, list[Instance]]) -> None:
    """And is gone when it is revoked."""
    group_id, (first, _) = guarded
    world = [ssh_from("0.0.0.0/0")]
    cloud.call("ec2", "authorize_security_group_ingress", GroupId=group_id, IpPermissions=world)
    wait_for(lambda: opens(cloud.third_machine, first.address, 22), "port 22 is open to the world")
    cloud.call("ec2", "revoke_security_group_ingress", GroupId=group_id, IpPermissions=world)
    wait_for(lambda: not opens(cloud.third_machine, first.address, 22), "port 22 is shut again")


def test_what_goes_out_needs_a_rule_too(cloud: EmulatedCloud) -> None:
    """A group without egress rules keeps a machine in, but for the cloud's own services."""
    group_id = group(cloud, "kept-in", ssh_from("0.0.0.0/0"))
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    cloud.call("ec2", "revoke_security_group_egress", GroupId=group_id, IpPermissions=everything)
    (kept, open_one) = [*launch(cloud, SecurityGroupIds=[group_id]), *launch(cloud)]
    assert not opens(lambda command: cloud.on_machine(kept, command), open_one.address, 22)
    assert opens(lambda command: cloud.on_machine(kept, command), "169.254.169.254", 80)
    assert opens(cloud.laptop, kept.address, 22)
