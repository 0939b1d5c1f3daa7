"""From `ray up` to the end of the first training step on an emulated EC2: when each phase ended, and what set-up ran.

The same work in two clusters: a training run of a tiny model on one worker machine, which `ray up` does not bring.
"""

import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from emulated.files import PROJECT, REGION, ROOT, shipped_file, stock_file
from scaletrain.cluster.aws_rehearsal import furnish
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.errors import ClusterError

sys.path.insert(0, str(PROJECT / "tests"))
from commands import SCALETRAIN, TINY

PHASES = (
    "head launched",
    "head answers by SSH",
    "head set up",
    "`ray up` has ended",
    "entry point runs",
    "worker launched",
    "worker set up",
    "worker has joined",
    "Ray Train asks for its workers",
    "worker group started",
    "DeepSpeed's CPU extension compiled",
    "engine and data ready",
    "first step done",
)
_LIMIT_S = 900
_STAMP = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"
_PREPARE = """
import sys
from scaletrain.config_file import load_config
from scaletrain.data.prepare import prepare
prepare(load_config(sys.argv[1], ()), use_ray=False)
"""
# The tiny model of the other arm and as many rows, of random tokens, as Ray's guide to DeepSpeed has it.
_STOCK_SCRIPT = """
import sys, time
print("MARK entry", time.time(), flush=True)
import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

def loop():
    import os
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed, torch
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 128}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_attention_heads=4, **sizes))
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config={
        "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 6, "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 2000000}, "zero_allow_untested_optimizer": True})
    print("MARK engine", time.time(), flush=True)
    for _ in range(6):
        ids = torch.randint(0, 384, (2, 64))
        engine.backward(engine(input_ids=ids, labels=ids).loss)
        engine.step()
    print("MARK step", time.time(), flush=True)

ray.init(address="auto")
scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": 2})
TorchTrainer(loop, scaling_config=scaling, torch_config=TorchConfig(backend="gloo")).fit()
"""
# Runs on a machine from its boot until Ray starts: every package manager's process there, each once. A name is looked
# at again each time, since a process becomes another program after its start.
_WATCH = r"""
import json, os, re, time
met, names = {}, set()
wanted = re.compile(r"(^|[/\0])(pip3?|apt|apt-get|dpkg|conda|uv)(\0|$)")
while "raylet" not in names:
    names = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line, name = open(f"/proc/{entry}/cmdline").read(), open(f"/proc/{entry}/comm").read().strip()
        except OSError:
            continue
        names.add(name)
        if wanted.search(line) and name not in ("bash", "sh", "sudo", "sshd"):
            met[entry] = line.replace("\0", " ").strip()
    time.sleep(0.03)
print(json.dumps(list(met.values())))
"""


@dataclass(frozen=True)
class Installations:
    """What a machine's set-up started and fetched."""

    kind: str
    commands: tuple[str, ...]
    fetches: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """Seconds from `ray up` being typed to the end of each phase, and what was installed on the way."""

    ended_s: dict[str, float]
    installations: tuple[Installations, ...]


def start_shipped() -> Start:
    """The shipped cluster/aws.yaml, `scaletrain submit`, and `scaletrain train` on data that is prepared."""
    return _measure(shipped_file, _run_shipped)


def start_stock() -> Start:
    """Ray's minimal example and `ray submit` of a script for Ray Train."""
    return _measure(stock_file, _run_stock)


def _measure(
    write_file: Callable[[Path], Path], run: Callable[[EmulatedCloud, Path], Callable[[], dict[str, float]]]
) -> Start:
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as name:
        path = write_file(Path(name))
        file = load_cluster_file(path)
        types = [each.instance_type for each in file.node_types if each.instance_type]
        with emulated_ec2(Path(name) / "cloud", region=REGION, internet=True, instance_types=types) as cloud:
            furnish(cloud, file)
            submit = run(cloud, path)
            with _SetUpWatch(cloud) as watch:
                began = time.time()
                up = cloud.laptop(["ray", "up", "-y", "--no-config-cache", str(path)], timeout_s=_LIMIT_S)
                assert up.returncode == 0, up.stdout[-3000:]
                ended = {"`ray up` has ended": time.time(), **_marks_of_up(up.stdout)}
                ended |= submit()
                ended |= _marks_of_machines(cloud)
            return Start({phase: ended[phase] - began for phase in PHASES}, watch.found())


def _run_shipped(cloud: EmulatedCloud, path: Path) -> Callable[[], dict[str, float]]:
    config = path.with_name("tiny.yaml")
    config.write_text(TINY.format(root=ROOT))
    prepared = cloud.laptop([sys.executable, "-c", _PREPARE, str(config)], timeout_s=_LIMIT_S)
    assert prepared.returncode == 0, prepared.stdout[-3000:]

    def submit() -> dict[str, float]:
        words = ["train", str(config), "scaling.workers=1", "scaling.cpus_per_worker=8", "train.steps=2"]
        done = cloud.laptop([SCALETRAIN, "submit", "--cluster", str(path), "--", *words], timeout_s=_LIMIT_S)
        assert done.returncode == 0, done.stdout[-3000:]
        bucket = ROOT.removeprefix("s3://").partition("/")[0]
        listed = cloud.call("s3", "list_objects_v2", Bucket=bucket, Prefix="scaletrain/runs/tiny/metrics/")
        keys = sorted(each["Key"] for each in listed["Contents"])
        first = orjson.loads(cloud.call("s3", "get_object", Bucket=bucket, Key=keys[0])["Body"].splitlines()[0])
        step_ended = datetime.fromisoformat(first["time"]).timestamp()
        told = _on_head(cloud, "cat /tmp/ray/session_latest/logs/jobs/supervisor-*.log")
        return {
            "entry point runs": _stamp(r".*Submitting job with RAY_ADDRESS", told),
            "engine and data ready": step_ended - first["step_s"],
            "first step done": step_ended,
        }

    return submit


def _run_stock(cloud: EmulatedCloud, path: Path) -> Callable[[], dict[str, float]]:
    script = path.with_name("train.py")
    script.write_text(_STOCK_SCRIPT)

    def submit() -> dict[str, float]:
        done = cloud.laptop(["ray", "submit", "--no-config-cache", str(path), str(script)], timeout_s=_LIMIT_S)
        marks = {name: float(at) for name, at in re.findall(r"MARK (\w+) ([\d.]+)", done.stdout)}
        assert marks.keys() == {"entry", "engine", "step"}, done.stdout[-3000:]
        return {
            "entry point runs": marks["entry"],
            "engine and data ready": marks["engine"],
            "first step done": marks["step"],
        }

    return submit


def _marks_of_up(told: str) -> dict[str, float]:
    return {
        "head launched": _stamp(r".*Launched instance", told),
        "head answers by SSH": _stamp(r".*updater\.py:\d+ -- .*Success", told),
        "head set up": _stamp(r".*\[7/7\].*Starting the Ray runtime", told),
    }


def _marks_of_machines(cloud: EmulatedCloud) -> dict[str, float]:
    """What the head and the first worker have logged; all clocks here are one."""
    worker = _workers(cloud)[0]
    logs = "/tmp/ray/session_latest/logs"
    monitor = _on_head(cloud, f"cat {logs}/monitor.out {logs}/monitor.log")
    joined = _on_head(cloud, f"grep -h 'Registering new node.*{worker.address}' {logs}/gcs_server.out")
    controller = _on_head(cloud, f"cat {logs}/train/ray-train-app-controller-*.log")
    compiled = cloud.on_machine(worker, ["sh", "-c", "find /home/*/.cache -name '*.so' -printf '%T@\\n' | sort"])
    return {
        "worker launched": _stamp(r".*node_provider\.py:\d+ -- .*Launched 1 nodes of type", monitor),
        "worker set up": _stamp(r".*\[7/7\].*Starting the Ray runtime", monitor),
        "worker has joined": _stamp("", joined),
        "Ray Train asks for its workers": _stamp(r".*Attempting to start training worker group", controller),
        "worker group started": _stamp(r".*Started training worker group", controller),
        "DeepSpeed's CPU extension compiled": float(compiled.stdout.split()[0]),
    }


def _stamp(what: str, text: str) -> float:
    """The time of the first line of a log that says `what`."""
    found = re.search(_STAMP + what, text)
    assert found, f"{what!r} is not in:\n{text[-3000:]}"
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def _on_head(cloud: EmulatedCloud, command: str) -> str:
    (head,) = [each for each in cloud.instances("running") if each.node_kind == "head"]
    return cloud.on_machine(head, ["bash", "-c", command]).stdout


def _workers(cloud: EmulatedCloud) -> list[Instance]:
    return [each for each in cloud.instances("running") if each.node_kind == "worker"]


class _SetUpWatch:
    """Watches every machine from its boot until Ray starts there."""

    def __init__(self, cloud: EmulatedCloud) -> None:
        self._cloud = cloud
        self._ending = threading.Event()
        self._met: dict[str, list[str]] = {}
        self._threads: list[threading.Thread] = []
        self._instances: dict[str, Instance] = {}

    def __enter__(self) -> "_SetUpWatch":
        self._thread = threading.Thread(target=self._look_for_machines, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for each in self._threads:
            each.join(timeout=10)

    def found(self) -> tuple[Installations, ...]:
        """What each machine ran and fetched; a machine whose watch did not come to its end is left out."""
        return tuple(
            Installations(each.node_kind, tuple(self._met[each.id]), tuple(self._cloud.fetches(each)))
            for each in self._instances.values()
            if each.id in self._met
        )

    def _look_for_machines(self) -> None:
        while not self._ending.wait(0.2):
            on = set(self._cloud.machines())
            for each in self._cloud.instances("running"):
                if each.id in on and each.id not in self._instances and each.node_kind:
                    self._instances[each.id] = each
                    self._threads.append(threading.Thread(target=self._watch, args=(each,), daemon=True))
                    self._threads[-1].start()

    def _watch(self, instance: Instance) -> None:
        with suppress(ClusterError, ValueError):  # a machine that did not reach Ray has no verdict
            done = self._cloud.on_machine(instance, ["/usr/bin/python3", "-c", _WATCH], timeout_s=_LIMIT_S)
            self._met[instance.id] = json.loads(done.stdout)
