"""Google's metadata server: who a machine is, its account's token, and the notices of its end."""

import json
import re
import threading

import pytest
from gce_launching import SCOPES, find, launch, make_account, metadata, said

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.emulator.gce import begin_shutdown, maintain
from scaletrain.errors import ClusterError

SENTINEL = """
import time
from scaletrain.notices import Sentinel
with Sentinel() as sentinel:
    open("/tmp/watching", "w").close()
    while sentinel.notice is None:
        time.sleep(0.1)
print(sentinel.notice.said, sentinel.notice.left_s() > 0)
"""
SPOT = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}


@pytest.fixture(scope="module")
def instance(gce: EmulatedCloud) -> Instance:
    """A machine without a service account."""
    return launch(gce)


def test_a_machine_learns_who_it_is(gce: EmulatedCloud, instance: Instance) -> None:
    """Items one by one, folders as lists, and everything below one as JSON."""
    assert metadata(gce, instance, "instance/name") == (200, instance.id)
    assert metadata(gce, instance, "project/project-id") == (200, gce.project)
    assert metadata(gce, instance, "instance/zone")[1].endswith(f"/zones/{gce.region}-a")
    assert metadata(gce, instance, "instance/network-interfaces/0/access-configs/0/external-ip") == (
        200,
        instance.public_address,
    )
    assert metadata(gce, instance, "instance/network-interfaces/0/")[1].split() == ["ip", "network", "access-configs/"]
    everything = json.loads(metadata(gce, instance, "instance/?recursive=true")[1])
    assert everything["networkInterfaces"][0]["ip"] == instance.address
    assert everything["maintenanceEvent"] == "NONE"
    assert metadata(gce, instance, "instance/nothing")[0] == 404


def test_a_machine_knows_by_what_its_price_is_looked_up(gce: EmulatedCloud, instance: Instance) -> None:
    """Its type, market and region, as scaletrain reads them there."""
    program = "from scaletrain.this_machine import find_this_machine as find; print(find(ask=True))"
    done = gce.on_machine(instance, ["/opt/scaletrain/venv/bin/python", "-c", program], timeout_s=60)
    assert done.returncode == 0, done.stdout
    assert f"market='on-demand', region='{gce.region}'" in done.stdout and "machine_type='" in done.stdout


def test_only_who_sends_the_header_is_answered(gce: EmulatedCloud, instance: Instance) -> None:
    """And nobody to whom the request was forwarded; the laptop is no machine."""
    assert metadata(gce, instance, "instance/name", "-H", "X: y")[0] == 403
    forwarded = ("-H", "Metadata-Flavor: Google", "-H", "X-Forwarded-For: 1.2.3.4")
    assert metadata(gce, instance, "instance/name", *forwarded)[0] == 403
    url = "http://metadata.google.internal/computeMetadata/v1/instance/name"
    answer = gce.laptop(["curl", "-s", "-D", "-", "-H", "Metadata-Flavor: Google", url]).stdout
    assert " 404 " in answer and "Metadata-Flavor" not in answer


def test_without_an_account_there_is_no_token(gce: EmulatedCloud, instance: Instance) -> None:
    """Google's clients find no credentials; the same with an account that is disabled."""
    assert metadata(gce, instance, "instance/service-accounts/default/token")[0] == 404
    assert "Error" in said(gce, instance, "storage.Client().get_bucket('any')")
    email = make_account(gce, "asleep")
    machine = launch(gce, serviceAccounts=[{"email": email, "scopes": SCOPES}])
    token = "instance/service-accounts/default/token"
    assert metadata(gce, machine, token)[0] == 200
    name = f"projects/{gce.project}/serviceAccounts/{email}"
    gce.call("iam", "projects.serviceAccounts.disable", name=name, body={})
    assert metadata(gce, machine, token)[0] == 403


def test_a_spot_machine_is_told_before_it_is_taken(gce: EmulatedCloud) -> None:
    """Whoever waits for the change is answered at once; then the machine goes, and is deleted as it was asked for."""
    spot = launch(gce, scheduling=SPOT)
    assert metadata(gce, spot, "instance/preempted") == (200, "FALSE")
    headers = ["curl", "-s", "-D", "-", "-o", "/dev/null", "-H", "Metadata-Flavor: Google"]
    url = "http://metadata.google.internal/computeMetadata/v1/instance/preempted"
    etag = re.findall(r"ETag: (\w+)", gce.on_machine(spot, [*headers, url]).stdout)[0]
    item = f"instance/preempted?wait_for_change=true&timeout_sec=60&last_etag={etag}"
    heard: list[tuple[int, str]] = []
    waiter = threading.Thread(target=lambda: heard.append(metadata(gce, spot, item)))
    waiter.start()
    wait_for(lambda: "wait_for_change" in gce.on_machine(spot, ["pgrep", "-a", "curl"]).stdout, "somebody waits")
    gce.preempt(spot, notice_s=6)
    waiter.join()
    assert heard == [(200, "TRUE")]
    wait_for(lambda: spot.id not in {each.id for each in gce.instances()}, "it is deleted", limit_s=30)


def test_a_worker_hears_of_it(gce: EmulatedCloud) -> None:
    """The package's own sentinel, as it runs beside a training."""
    spot = launch(gce, scheduling=SPOT)
    heard: list[str] = []
    waiter = threading.Thread(target=lambda: heard.append(said(gce, spot, SENTINEL)))
    waiter.start()
    wait_for(lambda: gce.on_machine(spot, ["ls", "/tmp/watching"]).returncode == 0, "it watches")
    gce.preempt(spot, notice_s=50)
    waiter.join()
    assert heard == ["Google preempts this spot machine True"]


def test_a_spot_machine_may_be_stopped_instead(gce: EmulatedCloud) -> None:
    """Without instanceTerminationAction it stays, stopped, and costs its disk; started again it has had no notice."""
    spot = launch(gce, scheduling={"provisioningModel": "SPOT"})
    gce.preempt(spot, notice_s=0)
    wait_for(lambda: find(gce, spot.id).state == "stopped", "it is stopped")
    assert find(gce, spot.id).state_reason == "Instance was preempted."
    gce.call("compute", "instances.start", zone=f"{gce.region}-a", instance=spot.id)
    wait_for(lambda: find(gce, spot.id).state == "running", "it runs again")
    assert metadata(gce, spot, "instance/preempted") == (200, "FALSE")


def test_a_guest_may_begin_to_shut_down_before_the_end(gce: EmulatedCloud) -> None:
    """As on the real one, where the notice comes with the signal to shut down: its programs get SIGTERM then."""
    spot = launch(gce, scheduling=SPOT)
    script = "trap 'touch /tmp/told' TERM; sleep 60 & wait; sleep 60"
    gce.on_machine(spot, ["sh", "-c", f'setsid sh -c "{script}" >/dev/null 2>&1 &'])
    wait_for(lambda: gce.on_machine(spot, ["pgrep", "sleep"]).returncode == 0, "it runs")
    gce.preempt(spot, notice_s=20)
    begin_shutdown(gce, spot)
    wait_for(lambda: gce.on_machine(spot, ["ls", "/tmp/told"]).returncode == 0, "it was told", limit_s=10)
    assert find(gce, spot.id).state == "running"


def test_maintenance_is_announced(gce: EmulatedCloud, instance: Instance) -> None:
    """By the item that has to be asked for by its name."""
    maintain(gce, instance, "TERMINATE_ON_HOST_MAINTENANCE")
    assert metadata(gce, instance, "instance/maintenance-event") == (200, "TERMINATE_ON_HOST_MAINTENANCE")
    maintain(gce, instance, "NONE")
    assert metadata(gce, instance, "instance/maintenance-event") == (200, "NONE")


def test_a_machine_on_demand_is_not_preempted(gce: EmulatedCloud, instance: Instance) -> None:
    """Google preempts Spot VMs only."""
    with pytest.raises(ClusterError, match="no Spot VM"):
        gce.preempt(instance, notice_s=30)
