"""The whole life of a small cluster by the real `ray up`: scale-up, spot loss, replacement, idle scale-down, down."""

import json
from pathlib import Path

import pytest
from launching import group, profile, ssh_from

from commands import wait_for
from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance

CLUSTER = """
cluster_name: scenario
max_workers: 2
idle_timeout_minutes: 0.25
provider: {{type: aws, region: us-west-2, availability_zone: us-west-2a, cache_stopped_nodes: false}}
auth: {{ssh_user: ubuntu}}
available_node_types:
  head:
    resources: {{CPU: 0}}
    node_config: &node
      InstanceType: m7i.large
      ImageId: resolve:ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id
      SecurityGroupIds: [{group}]
      IamInstanceProfile: {{Name: launcher-of-scenario}}
  worker:
    max_workers: 2
    resources: {{CPU: 1}}
    node_config:
      <<: *node
      IamInstanceProfile: {{Name: worker-of-scenario}}
      InstanceMarketOptions: {{MarketType: spot}}
head_node_type: head
file_mounts: {{~/work: {work}}}
setup_commands: ["echo set up on $(hostname) >> ~/setup.log"]
head_start_ray_commands:
  - {fast} AUTOSCALER_UPDATE_INTERVAL_S=1 AUTOSCALER_NODE_SSH_INTERVAL_S=1 ray start --head --port=6379
    --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1 --object-store-memory=200000000
worker_start_ray_commands:
  - {fast} ray start --address=$RAY_HEAD_IP:6379 --object-store-memory=200000000
"""
FAST = (
    "RAY_raylet_rpc_server_reconnect_timeout_base_s=1 RAY_raylet_rpc_server_reconnect_timeout_max_s=3 "
    "RAY_core_worker_rpc_server_reconnect_timeout_base_s=1 RAY_core_worker_rpc_server_reconnect_timeout_max_s=3 "
    "RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 "
    "RAY_health_check_failure_threshold=3"
)
JOB = """
import socket, sys, time
import ray
ray.init(address="auto")
@ray.remote(num_cpus=1, max_retries=5)
def work(seconds):
    import boto3
    print("TASK_START", socket.gethostname(), flush=True)
    time.sleep(seconds)
    host = socket.gethostname()
    boto3.client("s3").put_object(Bucket="scenario", Key=f"from/{host}", Body=b"x")
    return host
print("RESULT", ray.get(work.remote(float(sys.argv[1]))), flush=True)
"""


def workers(cloud: EmulatedCloud) -> list[Instance]:
    return [each for each in cloud.instances("running") if each.node_kind == "worker"]


def cluster_file(cloud: EmulatedCloud, folder: Path) -> Path:
    """Write the file, and make what it takes for granted in the account."""
    group_id = group(cloud, "scenario", ssh_from(f"{cloud.laptop_address}/32"))
    itself = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id}]}
    cloud.call("ec2", "authorize_security_group_ingress", GroupId=group_id, IpPermissions=[itself])
    anything = {"Effect": "Allow", "Action": ["ec2:*", "iam:PassRole", "ssm:GetParameters"], "Resource": "*"}
    profile(cloud, "launcher-of-scenario", anything)
    profile(cloud, "worker-of-scenario", {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"})
    file = folder / "aws.yaml"
    file.write_text(CLUSTER.format(group=group_id, work=folder / "work", fast=FAST))
    return file


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_cluster_scales_loses_a_spot_machine_and_goes_down(folder: Path) -> None:
    """Unmodified Ray; the worker writes the bucket with its own role; in the end no machine is left."""
    with emulated_ec2(folder) as cloud:
        place = {"LocationConstraint": "us-west-2"}
        cloud.call("s3", "create_bucket", Bucket="scenario", CreateBucketConfiguration=place)
        (folder / "work").mkdir()
        (folder / "work" / "job.py").write_text(JOB)
        file = cluster_file(cloud, folder)

        up = cloud.laptop(["ray", "up", "-y", "--no-config-cache", str(file)], timeout_s=300)
        assert up.returncode == 0, up.stdout[-3000:]
        assert workers(cloud) == []

        output = folder / "job.log"
        run = ["ray", "exec", "--no-config-cache", str(file), "python -u ~/work/job.py 15"]
        job = cloud.start_on_laptop(run, output=output)
        wait_for(lambda: "TASK_START" in output.read_text(), "the task runs on a worker", limit_s=120)
        (lost,) = workers(cloud)
        assert (lost.market, lost.profile) == ("spot", "worker-of-scenario")
        cloud.preempt(lost, notice_s=0)
        wait_for(lambda: [each for each in workers(cloud) if each.id != lost.id], "a replacement", limit_s=120)
        assert job.wait(timeout=240) == 0, output.read_text()[-3000:]
        (replacement,) = workers(cloud)
        host = f"ip-{replacement.address.replace('.', '-')}"
        assert f"RESULT {host}" in output.read_text()
        stored = cloud.call("s3", "list_objects_v2", Bucket="scenario")["Contents"]
        assert [each["Key"] for each in stored] == [f"from/{host}"]

        wait_for(lambda: not workers(cloud), "idle workers are terminated", limit_s=120)
        down = cloud.laptop(["ray", "down", "-y", str(file)], timeout_s=120)
        assert down.returncode == 0, down.stdout[-3000:]
        wait_for(lambda: not cloud.machines(), "no machine is left")
        assert {each.state for each in cloud.instances()} == {"terminated"}
        callers = {call.caller.partition(" ")[0] for call in cloud.api_log() if call.action == "RunInstances"}
        assert len(callers) == 2, json.dumps(sorted(callers))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_stopped_head_is_used_again_with_its_disk(folder: Path) -> None:
    """With cache_stopped_nodes `ray down` stops it, and the next `ray up` starts the same machine."""
    with emulated_ec2(folder) as cloud:
        (folder / "work").mkdir()
        file = cluster_file(cloud, folder)
        file.write_text(file.read_text().replace("cache_stopped_nodes: false", "cache_stopped_nodes: true"))
        up = ["ray", "up", "-y", "--no-config-cache", str(file)]
        assert cloud.laptop(up).returncode == 0
        (head,) = cloud.instances("running")
        cloud.on_machine(head, ["touch", "/home/ubuntu/kept"])
        assert cloud.laptop(["ray", "down", "-y", str(file)]).returncode == 0
        wait_for(lambda: not cloud.machines(), "the head is off")
        assert [each.id for each in cloud.instances("stopped")] == [head.id]
        again = cloud.laptop(up)
        assert again.returncode == 0, again.stdout[-3000:]
        assert [each.id for each in cloud.instances("running")] == [head.id]
        assert cloud.on_machine(head, ["ls", "/home/ubuntu/kept"]).returncode == 0
