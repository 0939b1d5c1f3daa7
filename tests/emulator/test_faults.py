"""What happens to machines: stopped and started, crashed, unplugged."""

from launching import launch, opens, ssh, wait_until_up

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance


def again(cloud: EmulatedCloud, instance: Instance) -> Instance:
    return next(each for each in cloud.instances() if each.id == instance.id)


def test_a_stopped_machine_keeps_its_disk(cloud: EmulatedCloud) -> None:
    """Files, homes and the host key are there after the start; what was in memory is not."""
    (instance,) = launch(cloud)
    keep = "touch /tmp/kept ~/kept; sudo touch /etc/kept /dev/shm/lost; cat /etc/ssh/ssh_host_ed25519_key.pub"
    host_key = ssh(cloud, instance, keep).stdout
    cloud.call("ec2", "stop_instances", InstanceIds=[instance.id])
    wait_for(lambda: instance.id not in cloud.machines(), "it is off")
    assert again(cloud, instance).state == "stopped"
    cloud.call("ec2", "start_instances", InstanceIds=[instance.id])
    wait_until_up(cloud, instance)
    look = "ls /tmp/kept ~/kept /etc/kept; ls /dev/shm; cat /etc/ssh/ssh_host_ed25519_key.pub"
    done = ssh(cloud, again(cloud, instance), look)
    assert done.stdout == f"/etc/kept\n/home/ubuntu/kept\n/tmp/kept\n{host_key}"


def test_an_orderly_end_is_seen_by_peers(cloud: EmulatedCloud) -> None:
    """A connection from the laptop closes when the machine is terminated; its disk is gone."""
    (instance,) = launch(cloud)
    output = cloud.folder / "hanging.log"
    key = str(cloud.laptop_home / "key")
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", key]
    hanging = cloud.start_on_laptop(
        ["ssh", *options, f"ubuntu@{instance.address}", "echo in; sleep 600"], output=output
    )
    wait_for(lambda: "in" in output.read_text().splitlines(), "the session has begun")
    cloud.call("ec2", "terminate_instances", InstanceIds=[instance.id])
    assert hanging.wait(timeout=30) != 0
    wait_for(lambda: instance.id not in cloud.machines(), "it is off")


def test_a_crashed_machine_is_silent_and_still_runs_for_ec2(cloud: EmulatedCloud) -> None:
    """As if its host had lost power; terminating it works as ever."""
    (instance,) = launch(cloud)
    cloud.crash(instance)
    assert not opens(cloud.laptop, instance.address, 22)
    assert again(cloud, instance).state == "running"
    cloud.call("ec2", "terminate_instances", InstanceIds=[instance.id])
    wait_for(lambda: instance.id not in cloud.machines(), "it is off")


def test_a_cut_machine_goes_on_and_comes_back(cloud: EmulatedCloud) -> None:
    """Its processes live; the network is there again when the wire is."""
    (instance,) = launch(cloud)
    cloud.cut(instance)
    assert not opens(cloud.laptop, instance.address, 22)
    assert cloud.on_machine(instance, ["true"]).returncode == 0
    cloud.heal(instance)
    wait_for(lambda: opens(cloud.laptop, instance.address, 22), "it answers again")
