"""The emulated Compute Engine's disks, and the images that are made of them."""

from collections.abc import Callable, Sequence
from typing import Any

from scaletrain.emulator.gce_catalog import URL, Catalog
from scaletrain.emulator.gce_network import in_use, last_part
from scaletrain.emulator.gce_operations import Operations
from scaletrain.emulator.google_filter import matches
from scaletrain.emulator.google_request import Call, Refusal, Resource, Route, not_found, page


class Disks:
    """Disks by zone and name; the caller holds the cloud's lock."""

    def __init__(self, project: str, catalog: Catalog, operations: Operations) -> None:
        self._project = project
        self._catalog = catalog
        self._operations = operations
        self._disks: dict[tuple[str, str], Resource] = {}

    def add(self, zone: str, disks: Sequence[Resource]) -> None:
        """Let disks exist that a launch makes."""
        self._disks |= {(zone, disk["name"]): disk for disk in disks}

    def detach(self, instance: Resource) -> None:
        """Delete the disks of a machine that is gone, but for those that it was to leave behind."""
        for attached in instance["disks"]:
            key = (last_part(instance["zone"]), last_part(attached["source"]))
            if attached.get("autoDelete"):
                self._disks.pop(key, None)
            elif key in self._disks:
                self._disks[key]["users"] = []

    def routes(self) -> list[Route]:
        """What Compute Engine answers about disks, and about images that are the project's own."""
        own = "/compute/v1/projects/{project}"
        disks, images = f"{own}/zones/{{zone}}/disks", f"{own}/global/images"
        return [
            _route("GET", disks, "disks.list", self._list),
            _route("GET", f"{own}/aggregated/disks", "disks.list", self._list_all_disks),
            _route("POST", disks, "disks.create", self._insert_disk),
            _route("GET", f"{disks}/{{name}}", "disks.get", self._disk),
            _route("DELETE", f"{disks}/{{name}}", "disks.delete", self._delete_disk),
            _route("POST", images, "images.create", self._insert_image),
            _route("DELETE", f"{images}/{{name}}", "images.delete", self._delete_image),
        ]

    def _list(self, call: Call) -> Resource:
        found = [disk for (zone, _), disk in self._disks.items() if zone == call.names["zone"]]
        return page(call, "compute#diskList", [each for each in found if matches(call.query.get("filter", ""), each)])

    def _list_all_disks(self, call: Call) -> Resource:
        found = [each for each in self._disks.values() if matches(call.query.get("filter", ""), each)]
        return aggregated("disks", found)

    def _disk(self, call: Call) -> Resource:
        key = (call.names["zone"], call.names["name"])
        if key not in self._disks:
            raise not_found(call.path.removeprefix("/compute/v1/"))
        return self._disks[key]

    def _insert_disk(self, call: Call) -> Resource:
        zone, body = self._catalog.zone(call.names["zone"]), call.body
        base = f"{URL}/{self._project}/zones/{zone}"
        disk = {"kind": "compute#disk", "status": "READY", "sizeGb": "10", "labels": {}, **body, "zone": base}
        self._disks[zone, body["name"]] = {**disk, "selfLink": f"{base}/disks/{body['name']}"}
        return self._operations.begin(call, "insert", self._disks[zone, body["name"]])

    def _delete_disk(self, call: Call) -> Resource:
        disk = self._disk(call)
        if disk.get("users"):
            raise in_use(disk, disk["users"][0])
        return self._operations.begin(call, "delete", self._disks.pop((call.names["zone"], disk["name"])))

    def _insert_image(self, call: Call) -> Resource:
        body = call.body
        parts = body["sourceDisk"].split("/")
        disk = self._disks.get((parts[parts.index("zones") + 1], parts[-1]))
        if disk is None:
            raise not_found(body["sourceDisk"])
        if (self._project, body["name"]) in self._catalog.images:
            raise Refusal(409, "alreadyExists", f"The resource '{body['name']}' already exists")
        more = {key: value for key, value in body.items() if key not in ("name", "family")}
        size_gb, family = int(disk["sizeGb"]), body.get("family", "")
        image = self._catalog.add_image(self._project, body["name"], family=family, size_gb=size_gb, **more)
        return self._operations.begin(call, "insert", image)

    def _delete_image(self, call: Call) -> Resource:
        image = self._catalog.image(call.path.removeprefix("/compute/v1/"))
        del self._catalog.images[self._project, image["name"]]
        return self._operations.begin(call, "delete", image)


def aggregated(kind: str, found: list[Resource]) -> Resource:
    """Return a list of all zones' resources as the API gives it: by zone."""
    scopes: dict[str, Any] = {}
    for each in found:
        scope = scopes.setdefault(f"zones/{last_part(each['zone'])}", {kind: []})
        scope[kind].append(each)
    return {"kind": f"compute#{kind.removesuffix('s')}AggregatedList", "items": scopes}


def _route(method: str, path: str, permission: str, answer: Callable[[Call], Resource]) -> Route:
    return Route("compute", method, path, f"compute.{permission}", answer)
