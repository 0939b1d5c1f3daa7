"""notices: what EC2 and Google say of a machine's end is seen in time, and Ray places nothing new on that machine."""

import json
import logging
import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

import metadata_server
from commands import wait_for
from emulator.launching import launch
from metadata_server import ACTION, REBALANCE, MetadataServer
from one_machine import ADDRESS, Machine, missing
from scaletrain import metadata_service, notices
from scaletrain.emulator.ec2 import advise_rebalance, emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.emulator.requirements import missing_requirements
from scaletrain.notices import Notice, Sentinel

# Runs on an emulated machine: says what it sees of advice and notice, and when the end is by this computer's clock.
_WATCH = """
import time
from scaletrain.log import setup_logging
from scaletrain.notices import Sentinel
setup_logging()
with Sentinel() as sentinel:
    give_up = time.monotonic() + 60
    while sentinel.{wanted} is None and time.monotonic() < give_up:
        time.sleep(0.05)
found = sentinel.{wanted}
print(found.kind, time.time() + found.left_s(), sentinel.notice is None)
"""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long, and no proxy is in the way of a machine's own metadata service."""
    monkeypatch.setattr(notices, "_POLL_S", 0.02)
    monkeypatch.setattr(metadata_service, "_TIMEOUT_S", 0.5)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


# --- EC2, its metadata service emulated ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with emulated_ec2(tmp_path_factory.mktemp("ec2")) as emulated:
        yield emulated


def launch_spot(cloud: EmulatedCloud) -> Instance:
    """Launch a spot machine whose metadata service wants tokens."""
    tokens = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    (spot,) = launch(cloud, MetadataOptions=tokens, InstanceMarketOptions={"MarketType": "spot"})
    return spot


def watch(cloud: EmulatedCloud, instance: Instance, wanted: str) -> tuple[list[str], str]:
    """Run the sentinel on a machine until it has seen an advice or a notice; returns its words and its whole output."""
    command = ["/opt/scaletrain/venv/bin/python", "-c", _WATCH.format(wanted=wanted)]
    done = cloud.on_machine(instance, command, timeout_s=100)
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1].split(), done.stdout


def test_ec2_s_notice_is_seen_and_never_promises_time_that_is_not_there(cloud: EmulatedCloud) -> None:
    """The sentinel knows the end to the second, says so in one line, and needs no Ray."""
    spot = launch_spot(cloud)
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch, cloud, spot, "notice")
        time.sleep(2)  # so that it watches already, as a rule; what it says is the same either way
        cloud.preempt(spot, notice_s=120)
        end = time.time() + 120
        (kind, seen_end, _), told = watching.result()
    assert kind == "terminate"
    assert end - 15 < float(seen_end) <= end
    (line,) = [line for line in told.splitlines() if "scaletrain.notices" in line]
    assert "EC2 will terminate this spot machine at" in line and "saves its state at once" in line


def test_advice_to_rebalance_is_not_a_notice(cloud: EmulatedCloud) -> None:
    """It is told, has no end, and the run goes on."""
    spot = launch_spot(cloud)
    advise_rebalance(cloud, spot)
    (kind, seen_end, no_notice), told = watch(cloud, spot, "advice")
    assert (kind, seen_end, no_notice) == ("rebalance", "inf", "True")
    assert "more likely" in told and "the run goes on" in told


def test_an_emulated_spot_machine_knows_what_it_is(cloud: EmulatedCloud) -> None:
    """By the same service; its price can be looked up by that."""
    spot = launch_spot(cloud)
    program = "from scaletrain.this_machine import find_this_machine as find; print(find(ask=True))"
    done = cloud.on_machine(spot, ["/opt/scaletrain/venv/bin/python", "-c", program], timeout_s=60)
    assert done.returncode == 0, done.stdout
    assert "machine_type='m7i.large', market='spot', region='us-west-2'" in done.stdout


# --- EC2, with what the emulator cannot do ---------------------------------------------------------------------------


def action(end_s: float) -> str:
    moment = datetime.fromtimestamp(end_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"action": "terminate", "time": moment})


def notice_of(server: MetadataServer) -> Notice:
    """What a sentinel sees of a server."""
    with server.serving() as address, Sentinel(address=address) as sentinel:
        found = wait_for(lambda: sentinel.notice, "a notice", limit_s=20)
    assert isinstance(found, Notice)
    return found


@pytest.mark.parametrize("clock_is_off_s", [-86400.0, 0.0, 86400.0])
def test_a_wrong_clock_changes_nothing(soon: None, clock_is_off_s: float) -> None:
    """The end is read against the metadata service's own clock, and its cut-off seconds count against us."""
    server = metadata_server.ec2()
    server.clock_s = time.time() + clock_is_off_s
    server.items[ACTION] = action(server.clock_s + 100)
    assert 80 < notice_of(server).left_s() <= 99  # of 100: a Date leaves up to a second open


def test_without_its_clock_a_notice_is_never_longer_than_ec2_gives(soon: None) -> None:
    """This machine's clock is all there is then, and it may be late."""
    server = metadata_server.ec2()
    server.items[ACTION] = action(time.time() + 3600)
    assert notice_of(server).left_s() <= 120


def test_an_end_in_the_past_leaves_no_time(soon: None) -> None:
    """Nobody waits for less than nothing."""
    server = metadata_server.ec2()
    server.items[ACTION] = action(time.time() - 60)
    assert notice_of(server).left_s() == 0


def test_an_expired_token_is_replaced(soon: None) -> None:
    """The notice comes long after the first token."""
    server = metadata_server.ec2()
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: server.asked > 4, "it watches")
        server.tokens.clear()
        server.items[ACTION] = action(time.time() + 100)
        wait_for(lambda: sentinel.notice, "a notice")


def test_version_1_alone_is_enough(soon: None) -> None:
    """Where there are no tokens at all, none is needed."""
    server = metadata_server.ec2(tokens="none")
    server.items[ACTION] = action(time.time() + 100)
    assert notice_of(server).kind == "terminate"


def test_a_token_that_cannot_be_had_is_told(soon: None, caplog: pytest.LogCaptureFixture) -> None:
    """A container behind a hop limit of 1 is not watched, and its user reads why."""
    server = metadata_server.ec2(tokens="withheld")
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: not sentinel._thread.is_alive(), "the thread ends")
    assert "--network host" in caplog.text and len(caplog.records) == 1


def test_a_service_that_fails_for_a_moment_is_asked_again(soon: None) -> None:
    """At the start as well as later."""
    server = metadata_server.ec2()
    server.failures_left = 2
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: server.asked > 6, "it watches")
        server.failures_left = 3
        wait_for(lambda: not server.failures_left, "it has failed again")
        server.items[ACTION] = action(time.time() + 100)
        wait_for(lambda: sentinel.notice, "a notice")


def test_lasting_silence_is_told_once(soon: None, caplog: pytest.LogCaptureFixture) -> None:
    """A sentinel that hears nothing any more does not pretend to watch."""
    server = metadata_server.ec2()
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: server.asked > 4, "it watches")
        server.failures_left = math.inf
        wait_for(lambda: caplog.records, "it is told")
        asked = server.asked
        wait_for(lambda: server.asked > asked + 40, "it goes on asking")
    assert "a notice may be missed" in caplog.text and len(caplog.records) == 1
    assert sentinel.notice is None


# --- Google ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "text", "most_s"),
    [("preempted", "TRUE", 30), ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", 60)],
)
def test_google_s_notice_counts_from_when_it_was_not_there_yet(soon: None, item: str, text: str, most_s: float) -> None:
    """It has no time of its own; half a minute for a preemption, a minute for maintenance."""
    server = metadata_server.google()
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: server.asked > 6, "it watches")
        assert sentinel.notice is None
        announced_at_s = time.monotonic()
        server.items[item] = text + "\n"
        found = wait_for(lambda: sentinel.notice, "a notice")
    assert announced_at_s + most_s - 15 < found.ends_at_s <= announced_at_s + most_s


def test_a_machine_that_google_moves_is_not_taken(soon: None) -> None:
    """Live migration ends nothing."""
    server = metadata_server.google()
    server.items["maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    with server.serving() as address, Sentinel(address=address) as sentinel:
        wait_for(lambda: server.asked > 6, "it watches")
    assert sentinel.notice is None and sentinel.advice is None


# --- No cloud --------------------------------------------------------------------------------------------------------


def test_off_the_clouds_the_thread_ends(soon: None, caplog: pytest.LogCaptureFixture) -> None:
    """Whether nobody listens, or somebody who knows nothing of all this, or who never answers; and silently."""
    stranger = MetadataServer("/")
    with socket.create_server(("127.0.0.1", 0)) as mute, stranger.serving() as known_nothing:
        silent = f"127.0.0.1:{mute.getsockname()[1]}"
        for address in ("127.0.0.1:9", known_nothing, silent):
            with Sentinel(address=address) as sentinel:
                wait_for(lambda watching=sentinel._thread: not watching.is_alive(), f"{address}: the thread ends")
            assert sentinel.notice is None
    assert caplog.records == []


def test_the_end_of_the_block_ends_the_thread(soon: None) -> None:
    """A worker that goes on living is not watched by two."""
    server = metadata_server.google()
    with server.serving() as address:
        with Sentinel(address=address) as sentinel:
            wait_for(lambda: server.asked > 6, "it watches")
        wait_for(lambda: not sentinel._thread.is_alive(), "the thread ends")


def test_a_rebalance_has_no_end(soon: None) -> None:
    """The least of several machines' times is then still right."""
    server = metadata_server.ec2()
    server.items[REBALANCE] = json.dumps({"noticeTime": "2026-11-24T10:00:00Z"})
    with server.serving() as address, Sentinel(address=address) as sentinel:
        found = wait_for(lambda: sentinel.advice, "an advice")
    assert math.isinf(found.left_s())


# --- Ray -------------------------------------------------------------------------------------------------------------

_DRAIN = """
import json, sys, time
import ray
import metadata_server
from ray._raylet import GcsClient
from scaletrain.notices import Sentinel, drain_this_node

ray.init(address=sys.argv[1], log_to_driver=False)
server = metadata_server.google()

@ray.remote(num_cpus=0)
class Worker:
    def drain(self, address):
        with Sentinel(address=address) as sentinel:
            while sentinel.notice is None:
                time.sleep(0.01)
        return ray.get_runtime_context().get_node_id()

    def lives(self):
        return True

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def place():
    time.sleep(0.5)
    return ray.get_runtime_context().get_node_id()

def places():
    return sorted(set(ray.get([place.remote() for _ in range(4)])))

def alive(node):
    return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

head, doomed = (Worker.options(resources={where: 0.001}).remote() for where in ("node:__internal_head__", "doomed"))
told = {"before": places()}
with server.serving() as address:
    server.items["maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    told["head"] = ray.get(head.drain.remote(address))
    told["doomed"] = ray.get(doomed.drain.remote(address))
draining = GcsClient(address=sys.argv[1]).get_draining_nodes()
told["draining"] = {node: deadline_ms / 1000 - time.time() for node, deadline_ms in draining.items()}
told["after"] = places()
told["lives"] = ray.get(doomed.lives.remote()) and alive(told["doomed"])
ray.kill(doomed)
give_up = time.monotonic() + 90
while alive(told["doomed"]) and time.monotonic() < give_up:
    time.sleep(0.2)
told["gone"] = not alive(told["doomed"])
print(json.dumps(told))
"""


def test_what_ray_offers_privately_is_still_there() -> None:
    """There is no public call: where this fails, look how `ray drain-node` does it now."""
    from ray._raylet import GcsClient, InnerGcsClient  # type: ignore[attr-defined]
    from ray.core.generated import autoscaler_pb2

    assert autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION == 2
    assert hasattr(GcsClient, "__getattr__")
    arguments = "node_id", "reason", "reason_message", "deadline_timestamp_ms", "timeout"
    assert all(each in InnerGcsClient.drain_node.__doc__ for each in arguments)


@pytest.mark.long
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_ray_places_nothing_new_on_a_machine_that_goes(tmp_path: Path) -> None:
    """What runs there goes on until it ends by itself; the head is left alone. With Ray's token, as on a cluster."""
    machine = Machine(tmp_path)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "auth_token")}
    ours = {**token, "PYTHONPATH": str(Path(__file__).parent)}
    start = ("ray", "start", "--num-cpus=1", "--object-store-memory=100000000", f"--node-ip-address={ADDRESS}")
    try:
        machine.succeed(*start, "--head", "--port=6379", "--include-dashboard=false", **ours)
        ports = ("--dashboard-agent-listen-port=52366", '--resources={"doomed": 1}')
        machine.succeed(*start, f"--address={ADDRESS}:6379", *ports, **ours)
        told = json.loads(machine.succeed("python", "-c", _DRAIN, f"{ADDRESS}:6379", **ours).splitlines()[-1])
    finally:
        machine.end()
    assert told["before"] == sorted([told["head"], told["doomed"]])
    assert list(told["draining"]) == [told["doomed"]]
    assert 0 < told["draining"][told["doomed"]] <= 60
    assert told["after"] == [told["head"]]
    assert told["lives"] and told["gone"]


def test_a_ray_that_cannot_be_told_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The state is saved all the same."""
    import ray

    def lost() -> None:
        raise ConnectionError("the head does not answer")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lost)
    notices.drain_this_node(30, message="EC2 will terminate this machine")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "the head does not answer" in record.getMessage()
