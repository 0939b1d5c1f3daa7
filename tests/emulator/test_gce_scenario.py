"""The life of a small cluster on Google Cloud by the real `ray up`: scale-up, preemption, replacement, down."""

from pathlib import Path

import pytest
from gce_launching import bind, make_account
from test_scenario import FAST

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.emulator.gce import emulated_gce

# A second run of a worker's start commands, which Ray's launcher gives to each on Google Cloud, must do nothing.
CLUSTER = """
cluster_name: scenario
max_workers: 8
idle_timeout_minutes: 0.25
provider:
  {{type: gcp, region: us-central1, availability_zone: us-central1-a, project_id: emulated-project,
    cache_stopped_nodes: false}}
auth: {{ssh_user: ubuntu}}
available_node_types:
  head:
    resources: {{CPU: 0}}
    node_config: &node
      machineType: n2-standard-4
      disks:
        - boot: true
          autoDelete: true
          initializeParams:
            {{diskSizeGb: 50, sourceImage: projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64}}
  worker:
    max_workers: 2
    resources: {{CPU: 1}}
    node_config:
      <<: *node
      scheduling: {{provisioningModel: SPOT, instanceTerminationAction: DELETE}}
      serviceAccounts: [{{email: {worker}, scopes: ["https://www.googleapis.com/auth/cloud-platform"]}}]
head_node_type: head
file_mounts: {{~/work: {work}}}
setup_commands: ["echo set up on $(hostname) >> ~/setup.log"]
head_setup_commands: []
head_start_ray_commands:
  - {fast} AUTOSCALER_UPDATE_INTERVAL_S=1 AUTOSCALER_NODE_SSH_INTERVAL_S=1 ray start --head --port=6379
    --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1 --object-store-memory=200000000
worker_start_ray_commands:
  - pgrep -x raylet || {fast} ray start --address=$RAY_HEAD_IP:6379 --object-store-memory=200000000
"""
JOB = """
import socket, sys, time
import ray
ray.init(address="auto")
@ray.remote(num_cpus=1, max_retries=5)
def work(seconds):
    from google.cloud import storage
    print("TASK_START", socket.gethostname(), flush=True)
    time.sleep(seconds)
    host = socket.gethostname()
    storage.Client().bucket("scenario").blob(f"from/{host}").upload_from_string("x")
    return host
print("RESULT", ray.get(work.remote(float(sys.argv[1]))), flush=True)
"""


def workers(cloud: EmulatedCloud) -> list[Instance]:
    return [each for each in cloud.instances("running") if each.node_kind == "worker"]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_cluster_scales_loses_a_spot_machine_and_goes_down(gce_folder: Path) -> None:
    """Unmodified Ray; the worker writes the bucket as its own service account; in the end no machine is left."""
    with emulated_gce(gce_folder) as cloud:
        cloud.call("storage", "buckets.insert", body={"name": "scenario", "location": "us-central1"})
        worker = make_account(cloud, "worker")
        bind(cloud, "roles/storage.objectUser", worker)
        (gce_folder / "work").mkdir()
        (gce_folder / "work" / "job.py").write_text(JOB)
        file = gce_folder / "gcp.yaml"
        file.write_text(CLUSTER.format(work=gce_folder / "work", fast=FAST, worker=worker))

        up = cloud.laptop(["ray", "up", "-y", "--no-config-cache", str(file)], timeout_s=300)
        assert up.returncode == 0, up.stdout[-3000:]
        assert workers(cloud) == []

        output = gce_folder / "job.log"
        run = ["ray", "exec", "--no-config-cache", str(file), "python -u ~/work/job.py 15"]
        job = cloud.start_on_laptop(run, output=output)
        wait_for(lambda: "TASK_START" in output.read_text(), "the task runs on a worker", limit_s=120)
        (lost,) = workers(cloud)
        assert (lost.market, lost.profile) == ("spot", worker)
        cloud.preempt(lost, notice_s=0)
        wait_for(lambda: [each for each in workers(cloud) if each.id != lost.id], "a replacement", limit_s=120)
        assert job.wait(timeout=240) == 0, output.read_text()[-3000:]
        (replacement,) = workers(cloud)
        assert f"RESULT {replacement.hostname}" in output.read_text()
        stored = cloud.call("storage", "objects.list", bucket="scenario")["items"]
        assert [each["name"] for each in stored] == [f"from/{replacement.hostname}"]

        wait_for(lambda: not workers(cloud), "idle workers are deleted", limit_s=120)
        down = cloud.laptop(["ray", "down", "-y", str(file)], timeout_s=120)
        assert down.returncode == 0, down.stdout[-3000:]
        wait_for(lambda: not cloud.machines() and not cloud.instances(), "no machine is left")
        launchers = {call.caller for call in cloud.api_log() if call.action == "instances.create"}
        assert len(launchers) == 2, launchers
