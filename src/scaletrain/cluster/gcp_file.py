"""What a Google Cloud cluster file must say of its machines: rights, doors, disks, and nothing that Google refuses."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from scaletrain.cluster.cluster_file import UNFILLED
from scaletrain.cluster.schema import did_you_mean

_RAYS_OWN_KEYS = {"sourceInstanceTemplate"}  # Ray takes it out of the request
_INIT = "scaletrain cluster init gcp"
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": Mapping,
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": (str, int),  # Google sends large numbers as text, and takes either
}


def gcp_file_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Return the problems of a file whose form is right; Google's own description of an instance is consulted too."""
    yield from _name_problems(tree)
    yield from _provider_problems(tree)
    yield from _start_problems(tree)
    head = tree["head_node_type"]
    head_account = _account(tree["available_node_types"][head]["node_config"])
    for name, kind in tree["available_node_types"].items():
        place = f"available_node_types.{name}.node_config"
        config = kind["node_config"]
        form = list(_form_problems(config, "Instance", place))
        yield from form
        if form:  # what has a wrong form cannot be understood
            continue
        yield from _account_problems(config, place, is_head=name == head, head_account=head_account)
        yield from _door_problems(config, place, internal=bool(tree["provider"].get("use_internal_ips")))
        yield from _key_problems(config, place)
        yield from _disk_problems(config, place)
        yield from _scheduling_problems(config, place, gpus=bool((kind.get("resources") or {}).get("GPU")))
        if "machineType" not in config:
            yield f"{place}: machineType is missing; name one, as g2-standard-8"


def _name_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Names become labels and parts of machines' names, where Google takes few characters."""
    cluster = tree["cluster_name"]
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,33}[a-z0-9]", cluster):
        yield f"cluster_name: got {cluster}; use 2 to 35 of a-z, 0-9 and -, as my-cluster"
    for name in tree["available_node_types"]:
        if not re.fullmatch(r"[a-z0-9_-]{1,63}", name):
            yield f"available_node_types.{name}: no label of Google's; use a-z, 0-9, _ and - only"


def _provider_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    provider = tree["provider"]
    for key, example in (
        ("project_id", "my-project"),
        ("region", "us-central1"),
        ("availability_zone", "us-central1-a"),
    ):
        if not provider.get(key):
            yield f"provider.{key}: missing; name one, as {example}"
    region, zone = str(provider.get("region", "")), str(provider.get("availability_zone", ""))
    filled = not region.startswith(UNFILLED) and not zone.startswith(UNFILLED)
    if region and zone and filled and not zone.startswith(f"{region}-"):
        yield f"provider.availability_zone: {zone} is not in {region}; name one that is, as {region}-a"
    bucket = (tree.get("metadata") or {}).get("bucket")
    if not isinstance(bucket, str):
        yield "metadata.bucket: missing; give the storage root, as gs://my-bucket/scaletrain"
    elif not bucket.startswith((UNFILLED, "gs://")):
        yield f"metadata.bucket: got {bucket}; give a URL of Google Cloud Storage, as gs://my-bucket/scaletrain"


def _start_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Ray 2.60 runs the workers' start commands again on a worker that runs, on Google Cloud only."""
    commands = " ".join(tree.get("worker_start_ray_commands") or ())
    if "ray stop" in commands:
        yield (
            "worker_start_ray_commands: Ray runs them again on workers that work already, so `ray stop` would end one "
            "after the other; remove it"
        )
    if "ray start" in commands and "pgrep" not in commands:
        yield (
            "worker_start_ray_commands: Ray runs them again on workers that work already; write `pgrep -x raylet ||` "
            "before `ray start`"
        )


@cache
def _schemas() -> dict[str, Any]:
    """Compute Engine's own description of what it takes, as it comes with Google's client."""
    import json

    from googleapiclient.discovery_cache import get_static_doc

    schemas: dict[str, Any] = json.loads(get_static_doc("compute", "v1"))["schemas"]
    return schemas


def _form_problems(value: Any, schema_name: str, place: str) -> Iterator[str]:
    """Hold an object against one of Google's descriptions: its fields, their types and their permitted values."""
    known = _schemas()[schema_name]["properties"]
    own = _RAYS_OWN_KEYS if schema_name == "Instance" else set()
    for key, each in value.items():
        if key in known:
            yield from _value_problems(each, known[key], f"{place}.{key}")
        elif key not in own:
            advice = did_you_mean(str(key), [*known, *own])
            remedy = advice if advice.startswith("did") else "remove it"
            yield f"{place}.{key}: Google knows no such field; {remedy}"


def _value_problems(value: Any, description: Mapping[str, Any], place: str) -> Iterator[str]:
    if "$ref" in description:
        if not isinstance(value, Mapping):
            yield f"{place}: got {type(value).__name__}; give fields in braces, as {{name: value}}"
        else:
            yield from _form_problems(value, description["$ref"], place)
        return
    expected = description.get("type", "any")
    wrong = expected in _TYPES and not isinstance(value, _TYPES[expected])
    if wrong or (isinstance(value, bool) and expected not in ("boolean", "any")):
        yield f"{place}: got {value!r}; give a value of type {expected}"
    elif expected == "array":
        for index, each in enumerate(value):
            yield from _value_problems(each, description["items"], f"{place}.{index}")
    elif "enum" in description and value not in description["enum"]:
        yield f"{place}: got {value}; {did_you_mean(str(value), description['enum'])}"


def _account(config: Mapping[str, Any]) -> str:
    accounts = config.get("serviceAccounts")
    first = accounts[0] if isinstance(accounts, list) and accounts else {}
    return str(first.get("email", "")) if isinstance(first, Mapping) else ""


def _account_problems(config: Mapping[str, Any], place: str, *, is_head: bool, head_account: str) -> Iterator[str]:
    account = _account(config)
    if not account:
        without = (
            "Ray would give it one that may do nearly everything in the project"
            if is_head
            else "the machines get no way to the bucket"
        )
        yield f"{place}: serviceAccounts are missing; {without}. {_INIT} makes one"
    elif account == "default" or account.endswith(
        ("-compute@developer.gserviceaccount.com", "@appspot.gserviceaccount.com")
    ):
        yield (
            f"{place}: has the project's default account, which is often Editor, so that every job could change "
            f"everything; give a service account of its own ({_INIT} makes one)"
        )
    elif account.startswith("ray-autoscaler-sa-"):
        yield f"{place}: has Ray's own account, which may do nearly everything in the project; {_INIT} makes another"
    elif not is_head and account == head_account and not account.startswith(UNFILLED):
        yield f"{place}: has the head's account, so any job could start machines; give workers one of their own"


def _door_problems(config: Mapping[str, Any], place: str, *, internal: bool) -> Iterator[str]:
    if not (config.get("tags") or {}).get("items"):
        yield (
            f"{place}: tags are missing, so the network's own rules hold, which often admit the whole world to port "
            f"22; {_INIT} makes rules and the tag for them"
        )
    interfaces = config.get("networkInterfaces") or []
    if not interfaces:
        yield f"{place}: networkInterfaces are missing, so Ray would take any subnet; name one as in cluster/gcp.yaml"
    elif not interfaces[0].get("accessConfigs") and not internal:
        yield (
            f"{place}: the machine gets no public address, so you cannot reach the head, nor workers the package "
            "index; add accessConfigs as in cluster/gcp.yaml"
        )


def _key_problems(config: Mapping[str, Any], place: str) -> Iterator[str]:
    items = {str(each.get("key")): str(each.get("value")) for each in (config.get("metadata") or {}).get("items", ())}
    if "ssh-keys" not in items:
        yield f"{place}: metadata has no ssh-keys, so nobody can log in; add it as in cluster/gcp.yaml"
    if items.get("block-project-ssh-keys", "").lower() != "true":
        yield f"{place}: keys of the project open this machine too; add block-project-ssh-keys: TRUE to metadata"
    if items.get("enable-oslogin", "").lower() != "false":
        yield f"{place}: OS Login, if on in the project, ignores ssh-keys; add enable-oslogin: FALSE to metadata"


def _disk_problems(config: Mapping[str, Any], place: str) -> Iterator[str]:
    disks = config.get("disks") or []
    if "sourceInstanceTemplate" not in config and not any(each.get("boot") for each in disks):
        yield f"{place}: disks have none with boot: true; give one as in cluster/gcp.yaml"
    for index, each in enumerate(disks):
        if not each.get("autoDelete"):
            yield f"{place}.disks.{index}: the disk outlives its machine; set autoDelete: true"
        if each.get("boot") and "sourceImage" not in (each.get("initializeParams") or {}):
            yield f"{place}.disks.{index}.initializeParams: sourceImage is missing; name one as in cluster/gcp.yaml"


def _scheduling_problems(config: Mapping[str, Any], place: str, *, gpus: bool) -> Iterator[str]:
    scheduling = config.get("scheduling") or {}
    spot = scheduling.get("provisioningModel") == "SPOT"
    if scheduling.get("preemptible"):
        yield f"{place}.scheduling.preemptible: of an older kind, at most 24 hours long; write provisioningModel: SPOT"
    if spot and scheduling.get("instanceTerminationAction") != "DELETE":
        yield (
            f"{place}.scheduling: a machine that Google takes back would only be stopped: `ray down` does not see it, "
            "and its disk goes on costing; set instanceTerminationAction: DELETE"
        )
    if (gpus or config.get("guestAccelerators")) and not spot and scheduling.get("onHostMaintenance") != "TERMINATE":
        yield f"{place}.scheduling: machines with GPUs cannot move to another host; set onHostMaintenance: TERMINATE"
