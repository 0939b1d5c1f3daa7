"""Compute Engine's machines: keys, names, certificates; stopped, crashed and unplugged; launches that fail."""

import sys

import pytest
from gce_launching import find, insert, launch, metadata, public_key, said, ssh, zone
from launching import opens

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance


@pytest.fixture(scope="module")
def instance(gce: EmulatedCloud) -> Instance:
    script = "#!/bin/sh\nid -un >> /root/started\n"
    items = [
        {"key": "ssh-keys", "value": f"ubuntu:{public_key(gce)}"},
        {"key": "startup-script", "value": script},
    ]
    return launch(gce, metadata={"items": items})


def test_sshd_lets_in_the_key_of_the_metadata(gce: EmulatedCloud, instance: Instance) -> None:
    """At the public and the private address; the machine has the instance's name."""
    for public in (True, False):
        done = ssh(gce, instance, "hostname; sudo -n id -un", public=public)
        assert done.stdout.split() == [instance.id, "root"], done.stdout


def test_the_projects_keys_count_unless_they_are_blocked(gce: EmulatedCloud) -> None:
    """With OS Login no key of the metadata does."""
    project = gce.call("compute", "projects.get")
    common = {**project["commonInstanceMetadata"], "items": [{"key": "ssh-keys", "value": f"ray:{public_key(gce)}"}]}
    gce.call("compute", "projects.setCommonInstanceMetadata", body=common)
    blocked = {"key": "block-project-ssh-keys", "value": "TRUE"}
    os_login = {"key": "enable-oslogin", "value": "TRUE"}
    homes = []
    for items in ([], [blocked], [os_login]):
        machine = launch(gce, metadata={"items": items})
        homes.append(gce.on_machine(machine, ["ls", "/home"]).stdout.split())
    assert homes == [["ray"], [], []]


def test_a_startup_script_runs_at_each_start_as_root(gce: EmulatedCloud, instance: Instance) -> None:
    """The disk, with what it wrote, outlives a stop; a stopped machine keeps its address."""
    wait_for(lambda: gce.on_machine(instance, ["cat", "/root/started"]).stdout == "root\n", "it has run")
    gce.call("compute", "instances.stop", zone=zone(gce), instance=instance.id)
    wait_for(lambda: find(gce, instance.id).state == "stopped", "it is stopped")
    assert instance.id not in gce.machines()
    gce.call("compute", "instances.start", zone=zone(gce), instance=instance.id)
    wait_for(lambda: find(gce, instance.id).state == "running", "it runs")
    wait_for(lambda: gce.on_machine(instance, ["cat", "/root/started"]).stdout == "root\n" * 2, "it has run again")
    assert find(gce, instance.id).address == instance.address


def test_laptop_and_machines_reach_the_apis_by_their_names(gce: EmulatedCloud, instance: Instance) -> None:
    """Over HTTPS, and trust the certificate; the laptop is logged in, this machine is not."""
    program = "from googleapiclient.discovery import build; print(build('compute', 'v1').projects().get(project='{}')"
    done = gce.laptop([sys.executable, "-c", program.format(gce.project) + ".execute()['name'])"])
    assert done.stdout.split()[-1] == gce.project, done.stdout
    url = "https://compute.googleapis.com/compute/v1/projects/p"
    assert '"code": 401' in gce.on_machine(instance, ["curl", "-s", url]).stdout
    assert "RefreshError" in said(gce, instance, "build('compute', 'v1').projects().get(project='p').execute()")


def test_a_crashed_machine_is_silent_and_still_runs_for_google(gce: EmulatedCloud) -> None:
    """Deleting it works as ever."""
    machine = launch(gce)
    gce.crash(machine)
    assert not opens(gce.laptop, machine.public_address, 22)
    assert find(gce, machine.id).state == "running"
    gce.call("compute", "instances.delete", zone=zone(gce), instance=machine.id)
    wait_for(lambda: machine.id not in {each.id for each in gce.instances()}, "it is deleted")


def test_a_machine_may_be_deleted_before_it_runs(gce: EmulatedCloud) -> None:
    """Nothing of it stays."""
    name = insert(gce)["targetLink"].rpartition("/")[2]
    gce.call("compute", "instances.delete", zone=zone(gce), instance=name)
    wait_for(lambda: name not in {each.id for each in gce.instances()}, "it is deleted")
    wait_for(lambda: name not in gce.machines(), "it is off")


def test_a_cut_machine_goes_on_and_comes_back(gce: EmulatedCloud, instance: Instance) -> None:
    """Its processes live; the network is there again when the wire is."""
    gce.cut(instance)
    assert not opens(gce.laptop, instance.address, 22)
    assert gce.on_machine(instance, ["true"]).returncode == 0
    gce.heal(instance)
    wait_for(lambda: opens(gce.laptop, instance.address, 22), "it answers again")
    assert metadata(gce, instance, "instance/name") == (200, instance.id)


def test_launches_fail_when_they_are_told_to(gce: EmulatedCloud) -> None:
    """The call succeeds and its operation ends in the error, for the market and type that were named."""
    spot = {"scheduling": {"provisioningModel": "SPOT"}}
    gce.fail_launches("ZONE_RESOURCE_POOL_EXHAUSTED", count=1, market="spot", instance_type="n2-standard-4")
    assert "error" not in insert(gce)
    failed = insert(gce, **spot)
    assert [each["code"] for each in failed["error"]["errors"]] == ["ZONE_RESOURCE_POOL_EXHAUSTED"]
    assert failed["httpErrorStatusCode"] == 503
    assert failed["targetLink"].rpartition("/")[2] not in {each.id for each in gce.instances()}
    assert "error" not in insert(gce, **spot)
    gce.fail_launches("QUOTA_EXCEEDED", count=1)
    assert insert(gce)["error"]["errors"][0]["message"].startswith("Quota 'N2_CPUS' exceeded.")
