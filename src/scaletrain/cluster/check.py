"""`scaletrain cluster check`: everything that can be known of a cluster file before a machine is started."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaletrain.cluster.cluster_file import UNFILLED, ClusterFile, from_tree
from scaletrain.cluster.problems import file_problems
from scaletrain.cluster.schema import schema_problems
from scaletrain.config import Config, WorkerRange
from scaletrain.prices import HourlyCost

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ClusterCheck:
    """What was found: every problem with its remedy, and what the cluster would be."""

    path: str
    problems: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    cost: HourlyCost | None

    def record(self) -> dict[str, Any]:
        """The findings for --json."""
        return {
            "file": self.path,
            "ok": not self.problems,
            "problems": list(self.problems),
            "facts": dict(self.facts),
            "usd_per_hour_at_least": self.cost.at_least if self.cost else None,
            "usd_per_hour_at_most": self.cost.at_most if self.cost else None,
        }

    def display(self) -> "Table":
        """The findings for the terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(f"{self.path}", "")
        for name, found in self.facts:
            table.add_row(escape(name), escape(found))
        return table


def check_cluster(path: Path, config: Config | None = None) -> ClusterCheck:
    """Look at a file, and at the account behind it; raises ConfigError only where the file cannot be read."""
    tree, problems = file_problems(path)
    if schema_problems(tree):  # then nothing more can be read from it
        return ClusterCheck(str(path), tuple(problems), (), None)
    file = from_tree(path, tree)
    if config is not None:
        problems += run_problems(file, config)
    facts = _file_facts(file)
    cost = None
    if str(file.region or UNFILLED).startswith(UNFILLED):
        facts.append(("account", f"not looked at: {file.provider}"))
    elif file.provider == "aws":
        from scaletrain.cluster.aws_check import check_aws

        cost = check_aws(file, problems, facts)
    elif file.provider == "gcp":
        from scaletrain.cluster.gcp_check import check_gcp

        cost = check_gcp(file, problems, facts)
    return ClusterCheck(str(path), tuple(dict.fromkeys(problems)), tuple(facts), cost)


def run_problems(file: ClusterFile, config: Config) -> Iterable[str]:
    """Hold a run's wishes against what the cluster may become."""
    workers = config.scaling.workers
    least = workers.min if isinstance(workers, WorkerRange) else workers
    gpus = config.scaling.gpus_per_worker
    if gpus is None:
        gpus = 0 if config.train.device == "cpu" or not any(kind.gpus for kind in file.workers) else 1
    if file.provider != "local":
        room = {kind.name: _workers_on(kind.resources, gpus, config.scaling.cpus_per_worker) for kind in file.workers}
        most = {kind.name: room[kind.name] * min(kind.max_workers, file.max_workers) for kind in file.workers}
        name = max(most, key=lambda each: most[each], default="")
        if not name or most[name] < least:
            shown = ", ".join(f"{each} {count}" for each, count in most.items())
            yield (
                f"max_workers: {config.name} needs at least {least} workers with {gpus} GPUs each from one node type "
                f"(scaling.workers), at most there are: {shown}; raise max_workers, or lower scaling.workers"
            )
    root = config.storage.root
    if file.bucket_root is not None and "://" in root and not f"{root}/".startswith(f"{file.bucket_root}/"):
        yield (
            f"metadata.bucket: the machines may use {file.bucket_root}, but {config.name} keeps its data in {root}; "
            f"set storage.root={file.bucket_root}, or run scaletrain cluster init with --bucket {root}"
        )
    if file.provider in ("aws", "gcp") and "://" not in root:
        yield f"storage.root: {root} is a folder of one machine; set storage.root={file.bucket_root}"


def _workers_on(resources: Any, gpus: int, cpus: float) -> int:
    counts = [int(resources.get("CPU", 0) // cpus)]
    if gpus:
        counts.append(int(resources.get("GPU", 0) // gpus))
    return min(counts)


def _file_facts(file: ClusterFile) -> list[tuple[str, str]]:
    facts = [("bucket", file.bucket_root or "none")]
    if file.provider == "local":
        facts.append(("machines", f"1 head and {file.max_workers} workers of your own"))
        return facts
    for kind in file.node_types:
        count = "1" if kind.name == file.head_node_type else f"{kind.min_workers} to {kind.max_workers}"
        facts.append((kind.name, f"{count} x {kind.instance_type}, {kind.market}"))
    return facts
