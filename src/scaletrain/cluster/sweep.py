"""Looking for leaks in the cloud that a cluster file, or the caller, names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scaletrain.cluster.cluster_file import ClusterFile, load_cluster_file
from scaletrain.cluster.leaks import Leak, Living
from scaletrain.errors import ConfigError


@dataclass(frozen=True)
class Sweep:
    """What was found, the clusters that live, and the one way to remove what was found."""

    leaks: list[Leak]
    living: list[Living]
    remove: Callable[..., None]


def find(file: Path | None, *, cluster: str | None, region: str | None, project_id: str | None) -> Sweep:
    """Return the leaks of a file's cluster, or of every cluster in a project of Google Cloud or a region of AWS."""
    provider = "gcp" if project_id else "aws"
    own: ClusterFile | None = None  # the file that tells which images are wanted
    if file is not None:
        loaded = load_cluster_file(file)
        provider = loaded.provider
        if provider not in ("aws", "gcp"):
            raise ConfigError(f"{file}: leaks are looked for on AWS and Google Cloud; this file is for {provider}")
        cluster, region = cluster or loaded.name, region or loaded.region
        own = loaded if loaded.name == cluster else None
        project_id = loaded.raw["provider"].get("project_id")
    if provider == "gcp":
        return _on_google(own, cluster, project_id, region or "every region")
    return _on_aws(own, cluster, region)


def _on_aws(file: ClusterFile | None, cluster: str | None, region: str | None) -> Sweep:
    from scaletrain.cluster.aws_account import connect, own_region
    from scaletrain.cluster.aws_leaks import find_costs, images_of, remove_leaks

    account = connect(region or own_region())
    found = find_costs(account, cluster, images_in_use=images_of(file) if file else None)
    return Sweep(found.leaks, found.living, lambda tell: remove_leaks(account, found.leaks, tell=tell))


def _on_google(file: ClusterFile | None, cluster: str | None, project_id: str | None, region: str) -> Sweep:
    from scaletrain.cluster.gcp_account import connect
    from scaletrain.cluster.gcp_leaks import find_costs, images_of, remove_leaks
    from scaletrain.cluster.gcp_machines import zone_of

    project = connect(project_id, region)
    zone, images = (zone_of(file), images_of(file)) if file else (None, None)
    found = find_costs(project, cluster, zone=zone, images_in_use=images)
    return Sweep(found.leaks, found.living, lambda tell: remove_leaks(project, found.leaks, tell=tell))
