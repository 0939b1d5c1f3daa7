"""The emulated Compute Engine's machines, in the form of its API.

What a machine should be is in its `status`; whoever makes machines of it is told by `changed`, and tells `settled`.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

from scaletrain.emulator import gce_launch
from scaletrain.emulator.api_log import LaunchFailures
from scaletrain.emulator.gce_catalog import URL, Catalog
from scaletrain.emulator.gce_disks import Disks, aggregated
from scaletrain.emulator.gce_network import PUBLIC, Network, last_part
from scaletrain.emulator.gce_operations import Operations
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_filter import matches
from scaletrain.emulator.google_iam import Iam
from scaletrain.emulator.google_request import Call, Refusal, Resource, Route, not_found, page
from scaletrain.errors import ClusterError

ON = ("PROVISIONING", "STAGING", "RUNNING")
_STOCK_OUT = (
    "The zone '{zone}' does not have enough resources available to fulfill the request.  Try a different zone, or try "
    "again later."
)
_QUOTA = "Quota '{metric}' exceeded.  Limit: {limit:.1f} {place}."


class Compute:
    """Instances by their names; the caller holds the cloud's lock."""

    def __init__(self, iam: Iam, catalog: Catalog, network: Network, disks: Disks, operations: Operations) -> None:
        self._iam = iam
        self._catalog = catalog
        self._network = network
        self._disks = disks
        self._operations = operations
        self.changed = threading.Event()
        self.failures = LaunchFailures()
        self.instances: dict[str, Resource] = {}
        self.deleting: set[str] = set()
        self.common_metadata: list[Resource] = []
        self.settle_at_once = False  # there are no machines: what is asked for is so

    # --- What keeps machines asks ------------------------------------------------------------------------------------

    def find(self, name: str) -> Resource:
        """Return an instance by its name, which is unique here even in other zones."""
        if name not in self.instances:
            raise ClusterError(f"no instance {name}; there are {sorted(self.instances)}")
        return self.instances[name]

    def power_off(self, name: str, *, delete: bool) -> None:
        """Begin to stop a machine, and to delete it when it is off."""
        if delete:
            self.deleting.add(name)
        self.instances[name]["status"] = "STOPPING"
        self._change(name)

    def settled(self, name: str) -> None:
        """Note that a machine is on or off as was wanted."""
        instance = self.instances.get(name)
        if instance is None:
            return
        if instance["status"] in ON:
            instance["status"] = "RUNNING"
            return
        instance["status"] = "TERMINATED"
        if name in self.deleting:
            self.deleting.discard(name)
            del self.instances[name]
            self._disks.detach(instance)
        self._count_usage()

    def _change(self, name: str) -> None:
        self._count_usage()
        if self.settle_at_once:
            self.settled(name)
        self.changed.set()

    def _count_usage(self) -> None:
        used: dict[str, float] = {}
        for instance in self.instances.values():
            if instance["status"] != "TERMINATED":
                for metric, amount in instance["takes"].items():
                    used[metric] = used.get(metric, 0.0) + amount
        self._catalog.usage = used

    # --- Calls -------------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """What Compute Engine answers about machines and the project's metadata."""
        own = "/compute/v1/projects/{project}"
        instances = f"{own}/zones/{{zone}}/instances"
        one = f"{instances}/{{name}}"
        return [
            _route("GET", own, "projects.get", self._get_project),
            _route("POST", f"{own}/setCommonInstanceMetadata", "projects.setCommonInstanceMetadata", self._set_common),
            _route("GET", instances, "instances.list", self._list),
            _route("GET", f"{own}/aggregated/instances", "instances.list", self._list_all),
            _route("POST", instances, "instances.create", self._insert),
            _route("GET", one, "instances.get", lambda call: shown(self._named(call))),
            _route("DELETE", one, "instances.delete", self._delete),
            _route("POST", f"{one}/stop", "instances.stop", self._stop),
            _route("POST", f"{one}/start", "instances.start", self._start),
            _route("POST", f"{one}/setLabels", "instances.setLabels", self._set_labels),
            _route("POST", f"{one}/setMetadata", "instances.setMetadata", self._set_metadata),
            _route("POST", f"{one}/setTags", "instances.setTags", self._set_tags),
        ]

    def _get_project(self, call: Call) -> Resource:
        metadata: Resource = {"kind": "compute#metadata", "fingerprint": fingerprint(self.common_metadata)}
        if self.common_metadata:
            metadata["items"] = self.common_metadata
        return {
            "kind": "compute#project",
            "name": self._iam.project,
            "defaultServiceAccount": f"{self._iam.number}-compute@developer.gserviceaccount.com",
            "commonInstanceMetadata": metadata,
            "quotas": self._catalog.quotas(of_project=True),
            "selfLink": f"{URL}/{self._iam.project}",
        }

    def _set_common(self, call: Call) -> Resource:
        _check_fingerprint(call.body.get("fingerprint"), fingerprint(self.common_metadata))
        self.common_metadata = call.body.get("items", [])
        return self._operations.begin(call, "setMetadata", {"selfLink": f"{URL}/{self._iam.project}"})

    def _listed(self, call: Call) -> list[Resource]:
        return [each for each in map(shown, self.instances.values()) if matches(call.query.get("filter", ""), each)]

    def _list(self, call: Call) -> Resource:
        zone = self._catalog.zone(call.names["zone"])
        found = [each for each in self._listed(call) if last_part(each["zone"]) == zone]
        return page(call, "compute#instanceList", found)

    def _list_all(self, call: Call) -> Resource:
        return aggregated("instances", self._listed(call))

    def _named(self, call: Call) -> Resource:
        instance = self.instances.get(call.names["name"])
        if instance is None or last_part(instance["zone"]) != call.names["zone"]:
            parts = call.path.removeprefix("/compute/v1/").split("/")
            raise not_found("/".join(parts[:6]))
        return instance

    def _insert(self, call: Call) -> Resource:
        zone, body = self._catalog.zone(call.names["zone"]), call.body
        gce_launch.check_launch(body)
        kind = self._catalog.machine_type(zone, last_part(body.get("machineType", "")))
        subnet = self._network.subnet_of(body["networkInterfaces"][0], zone.rpartition("-")[0])
        gpus = gce_launch.gpus_of(body, kind, zone, self._catalog)
        for permission, name in gce_launch.needed_permissions(call, body, subnet, self._catalog):
            self._iam.check(call.caller, permission, subject_of(name))
        for account in body.get("serviceAccounts", []):
            self._iam.may_act_as(call.caller, account["email"])
        if body["name"] in self.instances:
            name = f"projects/{self._iam.project}/zones/{zone}/instances/{body['name']}"
            raise Refusal(409, "alreadyExists", f"The resource '{name}' already exists")
        disks = gce_launch.boot_disks(call, body, self._catalog)
        spot = gce_launch.is_spot(body)
        takes = self._catalog.quota_metrics(kind, gpus, spot=spot)
        interfaces = [each["networkInterfaces"][0] for each in self.instances.values()]
        address = self._network.free_address(subnet, (each["networkIP"] for each in interfaces))
        used = {config["natIP"] for each in interfaces for config in each.get("accessConfigs", [])}
        public = next(str(each) for each in PUBLIC.hosts() if str(each) not in used)
        instance = gce_launch.new_instance(call, body, subnet, disks, address=address, public=public)
        if error := self._refused_launch(zone, kind.name, takes, spot=spot):
            return self._operations.begin(call, "insert", instance, error=error)
        self.instances[body["name"]] = {**instance, "takes": takes}
        self._disks.add(zone, disks)
        self._change(body["name"])
        return self._operations.begin(call, "insert", instance)

    def _refused_launch(self, zone: str, kind: str, takes: dict[str, float], *, spot: bool) -> tuple[str, str] | None:
        """Return the error in which a launch ends: one that was asked for, or for want of quota."""
        code = self.failures.take(market="spot" if spot else "on-demand", instance_type=kind)
        over = [
            metric
            for metric, amount in takes.items()
            if self._catalog.usage.get(metric, 0) + amount > self._catalog.limits[metric]
        ]
        if code == "QUOTA_EXCEEDED" or (over and not code):
            metric = over[0] if over else next(reversed(takes))
            place = "globally" if metric.endswith("_ALL_REGIONS") else f"in region {zone.rpartition('-')[0]}"
            return "QUOTA_EXCEEDED", _QUOTA.format(
                metric=metric, limit=self._catalog.limits[metric] if over else 0.0, place=place
            )
        return (code, _STOCK_OUT.format(zone=f"projects/{self._iam.project}/zones/{zone}")) if code else None

    def _delete(self, call: Call) -> Resource:
        instance = self._named(call)
        if instance.get("deletionProtection"):
            raise Refusal(400, "badRequest", "Invalid resource usage: 'Resource cannot be deleted if it's protected'.")
        operation = self._operations.begin(call, "delete", instance)
        self.power_off(instance["name"], delete=True)
        return operation

    def _stop(self, call: Call) -> Resource:
        instance = self._named(call)
        if instance["status"] in ON:
            self.power_off(instance["name"], delete=False)
        return self._operations.begin(call, "stop", instance)

    def _start(self, call: Call) -> Resource:
        instance = self._named(call)
        if instance["status"] == "TERMINATED":
            instance["status"] = "STAGING"
            self._change(instance["name"])
        return self._operations.begin(call, "start", instance)

    def _set_labels(self, call: Call) -> Resource:
        instance, body = self._named(call), call.body
        _check_fingerprint(body.get("labelFingerprint"), fingerprint(instance["labels"]))
        gce_launch.check_labels(body.get("labels", {}))
        instance["labels"] = body.get("labels", {})
        return self._operations.begin(call, "setLabels", instance)

    def _set_metadata(self, call: Call) -> Resource:
        return self._replaced(call, "metadata")

    def _set_tags(self, call: Call) -> Resource:
        return self._replaced(call, "tags")

    def _replaced(self, call: Call, key: str) -> Resource:
        """The new fingerprint follows from the old one, so that it differs even for the same content."""
        instance, old = self._named(call), self._named(call)[key]["fingerprint"]
        _check_fingerprint(call.body.get("fingerprint"), old)
        instance[key] = {**call.body, "fingerprint": fingerprint([old, call.body])}
        self.changed.set()
        return self._operations.begin(call, f"set{key.title()}", instance)


def subject_of(name: str) -> Subject:
    """Return what a condition may ask about a resource of Compute Engine."""
    kind = name.split("/")[-2].removesuffix("s").title() if "/" in name else "Project"
    return Subject(name, f"compute.googleapis.com/{kind}", "compute.googleapis.com")


def shown(instance: Resource) -> Resource:
    """Return an instance as the API shows it."""
    public = {key: value for key, value in instance.items() if key != "takes"}
    return {**public, "labelFingerprint": fingerprint(instance["labels"])}


def metadata_of(holder: list[Resource]) -> dict[str, str]:
    """Return metadata by its keys."""
    return {each["key"]: each.get("value", "") for each in holder}


def fingerprint(content: Any) -> str:
    """Return what stands for some content in a read and a later write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _check_fingerprint(given: str | None, current: str) -> None:
    if given != current:
        message = "Supplied fingerprint does not match current metadata fingerprint."
        raise Refusal(412, "conditionNotMet", message)


def _route(method: str, path: str, permission: str, answer: Callable[[Call], Resource]) -> Route:
    return Route("compute", method, path, f"compute.{permission}", answer)
