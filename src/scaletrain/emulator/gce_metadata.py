"""Google's metadata server: it knows a machine by its address, and tells only who asks with its header.

https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from scaletrain.emulator.cloud_process import METADATA_ADDRESS
from scaletrain.emulator.gce_compute import fingerprint, metadata_of
from scaletrain.emulator.gce_instances import Instances
from scaletrain.emulator.gce_launch import is_spot
from scaletrain.emulator.google_cloud import GoogleCloud
from scaletrain.emulator.google_request import Caller, Refusal, Resource

HOSTS = "metadata.google.internal metadata"
_ROOT = "/computeMetadata/v1"
_WAIT_LIMIT_S = 3600.0
_NAMED = ("attributes", "serviceAccounts")  # whose keys are names, not Google's words
Answered = tuple[int, str, dict[str, str]]


class MetadataServer:
    """Serves until the process ends."""

    def __init__(self, cloud: GoogleCloud, instances: Instances) -> None:
        self._cloud = cloud
        self._instances = instances

    def start(self) -> None:
        """Answer on the well-known address, in threads of its own."""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """No log: agents on the machines poll."""

            def do_GET(self) -> None:
                flavor = self.headers.get("Metadata-Flavor", "")
                forwarded = "X-Forwarded-For" in self.headers
                status, text, headers = server.read(self.client_address[0], self.path, flavor, forwarded=forwarded)
                body = text.encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        listener = http.server.ThreadingHTTPServer((METADATA_ADDRESS, 80), Handler)
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, daemon=True, name="metadata").start()

    def read(self, address: str, target: str, flavor: str, *, forwarded: bool = False) -> Answered:
        """Return the status, text and headers of one item; nobody but a machine gets Google's header back."""
        instance = self._instances.at(address)
        if instance is None:
            return 404, "", {}
        headers = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM", "Content-Type": "application/text"}
        url = urlsplit(target)
        if url.path == "/":
            return 200, "computeMetadata/\n", headers
        if flavor != "Google" or forwarded:
            return 403, "Missing Metadata-Flavor:Google header.", headers
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            text, etag, is_json = self._item(instance["name"], url.path, query)
        except Refusal as refusal:
            return refusal.status, refusal.message, headers
        if is_json:
            headers["Content-Type"] = "application/json"
        return 200, text, {**headers, "ETag": etag}

    def _item(self, name: str, path: str, query: dict[str, str]) -> tuple[str, str, bool]:
        """Return an item's text and what stands for it, once it has changed where that is asked for."""
        value = self._find(name, path)
        etag = fingerprint(_plain(value))
        if query.get("wait_for_change") == "true":
            known, deadline = (
                query.get("last_etag", etag),
                time.monotonic() + float(query.get("timeout_sec", _WAIT_LIMIT_S)),
            )
            with self._instances.told:
                while etag == known and (left_s := deadline - time.monotonic()) > 0:
                    self._instances.told.wait(left_s)
                    value = self._find(name, path)
                    etag = fingerprint(_plain(value))
        if callable(value):
            return json.dumps(value()), "0", True
        if isinstance(value, dict) and query.get("recursive") != "true" and query.get("alt") != "json":
            return (
                "".join(f"{key}{'/' if isinstance(each, dict) else ''}\n" for key, each in value.items()),
                etag,
                False,
            )
        if isinstance(value, dict):
            return json.dumps(_plain(value)), etag, True
        return "\n".join(value) if isinstance(value, list) else str(value), etag, False

    def _find(self, name: str, path: str) -> Any:
        with self._cloud.lock:
            instance = self._cloud.compute.instances.get(name)
            value: Any = self._tree(instance) if instance else {}
        for part in path.removeprefix(_ROOT).split("/") if path.startswith(_ROOT) else ("",):
            if part:
                if not isinstance(value, dict) or part not in value:
                    raise Refusal(404, "notFound", "The requested URL was not found on this server.")
                value = value[part]
        return value

    def _tree(self, instance: Resource) -> dict[str, Any]:
        iam, compute = self._cloud.iam, self._cloud.compute
        zone = instance["zone"].rpartition("/")[2]
        kind = instance["machineType"].rpartition("/")[2]
        interface = instance["networkInterfaces"][0]
        access = [
            {"external-ip": each["natIP"], "type": "ONE_TO_ONE_NAT"} for each in interface.get("accessConfigs", [])
        ]
        network = f"projects/{iam.number}/networks/{interface['network'].rpartition('/')[2]}"
        card = {"ip": interface["networkIP"], "network": network, "access-configs": _numbered(access)}
        scheduling = instance["scheduling"]
        own = {
            "attributes": metadata_of(instance["metadata"].get("items", [])),
            "hostname": f"{instance['name']}.{zone}.c.{iam.project}.internal",
            "id": int(instance["id"]),
            "image": instance["disks"][0]["source"],
            "machine-type": f"projects/{iam.number}/machineTypes/{kind}",
            "name": instance["name"],
            "network-interfaces": _numbered([card]),
            "scheduling": {
                "on-host-maintenance": scheduling["onHostMaintenance"],
                "preemptible": str(is_spot(instance)).upper(),
            },
            "service-accounts": self._accounts(instance),
            "tags": [*instance["tags"].get("items", [])],
            "zone": f"projects/{iam.number}/zones/{zone}",
            **self._instances.notice(instance["name"]),
        }
        common = metadata_of(compute.common_metadata)
        project = {"attributes": common, "numeric-project-id": int(iam.number), "project-id": iam.project}
        return {"instance": own, "project": project, "universe": {"universe-domain": "googleapis.com"}}

    def _accounts(self, instance: Resource) -> dict[str, Any]:
        """A machine without a service account has none here, as there."""
        found: dict[str, Any] = {}
        for each in instance.get("serviceAccounts", []):
            token = self._token_of(Caller(f"serviceAccount:{each['email']}", tuple(each.get("scopes", []))))
            own = {"aliases": ["default"], "email": each["email"], "scopes": each.get("scopes", []), "token": token}
            found |= {"default": own, each["email"]: own}
        return found

    def _token_of(self, caller: Caller) -> Callable[[], Resource]:
        def token() -> Resource:
            with self._cloud.lock:
                return self._cloud.iam.issue_token(caller)

        return token


def _numbered(values: list[Any]) -> dict[str, Any]:
    return {str(index): value for index, value in enumerate(values)}


def _plain(value: Any, *, names: bool = False) -> Any:
    """What `recursive=true` shows: keys in camelCase, numbered entries as a list, and no tokens."""
    if callable(value):
        return ""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_plain(each) for each in value.values()]
    found = {}
    for key, each in value.items():
        camel = key if names else re.sub("-(.)", lambda match: match[1].upper(), key)
        if not callable(each):
            found[camel] = _plain(each, names=camel in _NAMED)
    return found
