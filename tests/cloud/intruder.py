"""What a cluster on an emulated cloud gives to whoever has neither its token nor a job's secret."""

import json
import shlex
import sys
from collections.abc import Sequence

from account import Account

from scaletrain.cluster.rehearsal_phases import listening_places, open_places
from scaletrain.emulator.emulated_cloud import Instance

_PYTHON = "/opt/scaletrain/venv/bin/python"
# Asks each place by HTTP and by gRPC, without a token, for what Ray's services tell their friends.
_ASK_WITHOUT_TOKEN = """
import http.client, json, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
PATHS = ("/", "/api/job_agent/jobs/", "/api/jobs/", "/logs/", "/api/v0/logs")
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVKeys", "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull", "CoreWorkerService/GetCoreWorkerStats", "CoreWorkerService/PushTask",
    "LogService/ListLogs", "ReporterService/GetTraceback", "RayletDriver/ClusterInfo",
)
def by_http(address, port, path):
    try:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(200)
    except (OSError, http.client.HTTPException):
        return "silent"
    if answer.status >= 300:
        return "refused" if answer.status in (401, 403) else "silent"
    return "metrics" if text.startswith(b"# HELP") or not text.strip() else f"answered {path}"
def by_grpc(address, port, method):
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        try:
            channel.unary_unary("/ray.rpc." + method)(b"", timeout=2)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return "refused"
            return "silent" if error.code() in silent else f"answered {method}: {error.code()}"
        return f"answered {method}"
def ask(question):
    place, word = question
    return (by_http if word in PATHS else by_grpc)(*place, word)
places = json.loads(sys.argv[1])
questions = [(tuple(place), word) for place in places for word in PATHS + METHODS]
with ThreadPoolExecutor(32) as pool:
    answers = list(pool.map(ask, questions))
told = [[*place, sorted({a for (asked, _), a in zip(questions, answers) if asked == tuple(place)})] for place in places]
print(json.dumps(told))
"""
# Plants a text in a bucket, and tells every object there that has one of some texts in it; as the administrator.
_OBJECTS_WITH = """
import json, sys
from scaletrain import storage
root, planted, texts = sys.argv[1], sys.argv[2], [each.encode() for each in json.loads(sys.argv[3])]
storage.write_text(storage.join(root, "planted"), f"before {planted} after")
for each in storage.list_objects(root[: root.index("/", len("s3://"))]):
    body = storage.read_bytes(each.url)
    if any(text in body for text in texts):
        print(each.url)
"""
# All that the job server tells of its jobs, to whoever has the token.
_JOBS = """
import urllib.request, pathlib
token = pathlib.Path("/home/ubuntu/.ray/auth_token").read_text().strip()
request = urllib.request.Request("http://127.0.0.1:8265/api/jobs/", headers={"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(request).read().decode())
"""


def reached_from_outside(account: Account) -> dict[str, set[int]]:
    """The ports that answer a stranger in the same network, and those that answer the laptop."""
    cloud = account.cloud
    places = listening_places(cloud)
    assert 6379 in {port for _, port in places}, places
    public = {each.address: each.public_address for each in cloud.instances("running")}
    places += [(public[address], port) for address, port in places]
    runners = {"stranger": cloud.third_machine, "laptop": cloud.laptop}
    return {who: {port for _, port in open_places(run, places)} for who, run in runners.items()}


def told_without_token(account: Account, other: Instance, *, inside: Instance) -> dict[int, list[str]]:
    """What each port of a machine says without the token to another one, inside the cluster's own network.

    "refused", "metrics", "silent" where nothing answers in Ray's terms, or else what was answered.
    """
    cloud = account.cloud
    places = [place for place in listening_places(cloud) if place[0] == other.address and place[1] != 22]
    reached = open_places(lambda command: cloud.on_machine(inside, command), places)
    done = cloud.on_machine(inside, [_PYTHON, "-c", _ASK_WITHOUT_TOKEN, json.dumps(reached)])
    return {port: told for _, port, told in json.loads(done.stdout.splitlines()[-1])}


def files_with(account: Account, machine: Instance, texts: Sequence[str]) -> list[str]:
    """Ray's files on a machine, logs and packages among them, that have one of some texts in them."""
    patterns = [word for text in texts for word in ("-e", text)]
    done = account.cloud.on_machine(machine, ["grep", "-rlF", "--devices=skip", *patterns, "/tmp/ray/"])
    return [line for line in done.stdout.splitlines() if line.startswith("/tmp/ray/")]


def plant(account: Account, machine: Instance, text: str) -> str:
    """Put a text into a file among Ray's logs; returns its path."""
    folder = account.cloud.on_machine(machine, ["readlink", "-f", "/tmp/ray/session_latest/logs"]).stdout.strip()
    path = f"{folder}/planted.log"
    account.cloud.on_machine(machine, ["sh", "-c", f"echo before {shlex.quote(text)} after >{shlex.quote(path)}"])
    return path


def command_lines(account: Account, machine: Instance) -> str:
    """The arguments of every process on a machine."""
    return account.cloud.on_machine(machine, ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).stdout


def job_metadata(account: Account, head: Instance) -> str:
    """What the job server on the head tells of all jobs."""
    return account.cloud.on_machine(head, [_PYTHON, "-c", _JOBS]).stdout


def objects_with(account: Account, texts: Sequence[str], *, plant: str) -> list[str]:
    """The URLs of the bucket's objects that have one of some texts in them, once one was planted at the root."""
    told = account.run(sys.executable, "-c", _OBJECTS_WITH, account.root, plant, json.dumps(list(texts)))
    return [line for line in told.splitlines() if line.startswith(("s3://", "gs://"))]
