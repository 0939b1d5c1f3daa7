"""A Ray cluster file as scaletrain sees it: which cloud, which machines, how to reach the head, where the bucket is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scaletrain import yaml_text
from scaletrain.cluster.schema import schema_problems
from scaletrain.errors import ConfigError

UNFILLED = "UNFILLED"  # what the value of a place begins with that `scaletrain cluster init` has not filled yet


@dataclass(frozen=True)
class NodeType:
    """One kind of machine that the cluster may start."""

    name: str
    min_workers: int
    max_workers: int
    resources: Mapping[str, float]
    instance_type: str | None
    market: Literal["spot", "on-demand"] | None
    node_config: Mapping[str, Any] = field(repr=False)

    @property
    def gpus(self) -> float:
        """GPUs of one machine, as the file states them."""
        return self.resources.get("GPU", 0)

    @property
    def cpus(self) -> float:
        """CPUs of one machine that Ray may use, as the file states them."""
        return self.resources.get("CPU", 0)


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file; `raw` is its whole tree, as Ray reads it."""

    path: Path
    name: str
    provider: str
    region: str | None
    ssh_user: str
    ssh_private_key: Path | None
    bucket_root: str | None
    max_workers: int
    head_node_type: str
    node_types: tuple[NodeType, ...]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def head(self) -> NodeType:
        """The type of the head's machine."""
        return next(each for each in self.node_types if each.name == self.head_node_type)

    @property
    def workers(self) -> tuple[NodeType, ...]:
        """Every type but the head's; on machines of your own, where all are alike, that one type."""
        return tuple(each for each in self.node_types if each.name != self.head_node_type) or self.node_types


def load_cluster_file(path: str | Path) -> ClusterFile:
    """Read a cluster file; raises ConfigError that lists each breach of Ray's schema and each place to be filled."""
    tree, problems = read_tree(Path(path))
    problems += schema_problems(tree)
    if not problems and (places := unfilled_places(tree)):
        problems = [unfilled_problem(Path(path), tree, places)]
    if problems:
        raise ConfigError([line if line.startswith(str(path)) else f"{path}: {line}" for line in problems])
    return from_tree(Path(path), tree)


def read_tree(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a file's tree as Ray reads it, and a line for each key that is given twice or has no value."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: not found; name a cluster file, as cluster/aws.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); name a YAML file") from error
    _, problems = yaml_text.parse(text, source=str(path))
    tree = yaml.safe_load(text)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: is no cluster file; it needs cluster_name, provider and available_node_types")
    return tree, problems


def from_tree(path: Path, tree: Mapping[str, Any]) -> ClusterFile:
    """Build a ClusterFile from a tree that follows Ray's schema."""
    provider: Mapping[str, Any] = tree["provider"]
    auth: Mapping[str, Any] = tree.get("auth") or {}
    bucket = (tree.get("metadata") or {}).get("bucket")
    key = auth.get("ssh_private_key")
    if provider["type"] == "local":
        most = len(provider.get("worker_ips") or ())
        types: tuple[NodeType, ...] = (NodeType("local.cluster.node", most, most, {}, None, None, {}),)
    else:
        most = int(tree.get("max_workers", 2))
        head = tree["head_node_type"]
        types = tuple(
            _node_type(name, kind, default_max=0 if name == head else most)
            for name, kind in tree["available_node_types"].items()
        )
    return ClusterFile(
        path=path,
        name=tree["cluster_name"],
        provider=provider["type"],
        region=provider.get("region"),
        ssh_user=auth.get("ssh_user", "ubuntu" if provider["type"] in ("aws", "gcp") else "root"),
        ssh_private_key=Path(key).expanduser() if key else None,
        bucket_root=bucket.rstrip("/") if isinstance(bucket, str) else None,
        max_workers=int(tree.get("max_workers", most)),
        head_node_type=tree.get("head_node_type", types[0].name),
        node_types=types,
        raw=tree,
    )


def unfilled_places(tree: Any, path: str = "") -> list[str]:
    """Return the dotted paths of the values that `scaletrain cluster init` has to fill."""
    if isinstance(tree, Mapping):
        return [place for key, value in tree.items() for place in unfilled_places(value, f"{path}.{key}".lstrip("."))]
    if isinstance(tree, list):
        return [place for index, value in enumerate(tree) for place in unfilled_places(value, f"{path}.{index}")]
    return [path] if isinstance(tree, str) and tree.startswith(UNFILLED) else []


def unfilled_problem(path: Path, tree: Mapping[str, Any], places: list[str]) -> str:
    """Return the one line that says what an unfilled file needs."""
    kind = tree["provider"]["type"]
    shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    return f"{shown} not filled yet; run: scaletrain cluster init {kind} --file {path}"


def _node_type(name: str, kind: Mapping[str, Any], *, default_max: int) -> NodeType:
    config: Mapping[str, Any] = kind["node_config"]
    spot = (config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot" or (
        (config.get("scheduling") or {}).get("provisioningModel") == "SPOT"
    )
    return NodeType(
        name=name,
        min_workers=kind.get("min_workers", 0),
        max_workers=kind.get("max_workers", default_max),
        resources=kind["resources"],
        instance_type=config.get("InstanceType") or config.get("machineType"),
        market="spot" if spot else "on-demand",
        node_config=config,
    )
