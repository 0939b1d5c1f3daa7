"""Calls to the emulated Google Cloud by the names of its own documents: `compute`, `instances.insert`, zone=...

The methods, their paths and their parameters are read from the documents that google-api-python-client brings along.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scaletrain.emulator.google_cloud import GoogleCloud
from scaletrain.errors import ClusterError

_SERVICES = ("cloudresourcemanager", "compute", "iam", "secretmanager", "serviceusage", "storage")  # all of version 1


def administer(cloud: GoogleCloud, service: str, operation: str, arguments: dict[str, Any]) -> Any:
    """Make a call that nobody may refuse; `body` is the argument that is sent, the others are parameters."""
    method = _method(service, operation)
    given = {"project": cloud.iam.project, **arguments}
    body = given.pop("body", {})
    path, query = method["flatPath"] if "flatPath" in method else method["path"], {}
    for name, about in method.get("parameters", {}).items():
        if name not in given:
            continue
        if about["location"] == "path":
            plain = "+" + name if f"{{+{name}}}" in method["path"] else name
            path = path if plain == name else method["path"]
            path = path.replace(f"{{{plain}}}", str(given[name]) if plain != name else quote(str(given[name]), safe=""))
        else:
            query[name] = str(given[name])
    return cloud.administer(service, method["httpMethod"], _base(service) + path, body, query)


@cache
def _document(service: str) -> dict[str, Any]:
    from googleapiclient import discovery_cache

    folder = Path(discovery_cache.__file__).parent / "documents"
    if service not in _SERVICES:
        raise ClusterError(f"{service} is not emulated; there are {', '.join(_SERVICES)}")
    return dict(json.loads((folder / f"{service}.v1.json").read_text()))


def _base(service: str) -> str:
    return f"/{_document(service)['servicePath']}"


def _method(service: str, operation: str) -> dict[str, Any]:
    """Find `projects.serviceAccounts.create` or `instances.insert`."""
    *resources, name = operation.split(".")
    found = _document(service)
    for each in resources:
        found = found.get("resources", {}).get(each, {})
    if name not in found.get("methods", {}):
        raise ClusterError(f"{service} has no method {operation}")
    return dict(found["methods"][name])
