"""The emulated Google Cloud without its machines: every API in one place, with who may call what."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from scaletrain.emulator.api_log import ApiLog
from scaletrain.emulator.gce_catalog import Catalog
from scaletrain.emulator.gce_compute import Compute, subject_of
from scaletrain.emulator.gce_disks import Disks
from scaletrain.emulator.gce_network import Network
from scaletrain.emulator.gce_operations import Operations
from scaletrain.emulator.gcs_gate import Gate
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_iam import CLOUD, Iam
from scaletrain.emulator.google_project import Project
from scaletrain.emulator.google_request import Answer, Call, Refusal, Resource, Route
from scaletrain.emulator.google_secrets import Secrets
from scaletrain.errors import ClusterError

PROJECT_NUMBER = "424242424242"
_PROJECT_NAME = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]|\d+|-")


class GoogleCloud:
    """One project in one region; calls may come from any thread. `caller_name` tells who an address and member are."""

    def __init__(self, project: str, region: str, *, operations_last_s: float, object_store: str) -> None:
        """`object_store` is the address (host:port) of the server that keeps the buckets' objects."""
        self.lock = threading.RLock()
        self.log = ApiLog()
        self.iam = Iam(project, PROJECT_NUMBER)
        self.project = Project(self.iam)
        self.secrets = Secrets(self.iam)
        self.catalog = Catalog(project, region)
        self.operations = Operations(project, operations_last_s)
        self.network = Network(project, self.catalog.regions, self._change_network)
        disks = Disks(project, self.catalog, self.operations)
        self.compute = Compute(self.iam, self.catalog, self.network, disks, self.operations)
        self.buckets = Gate(self.iam, self.lock, object_store)
        self.caller_name: Callable[[str, str], str] = lambda _, member: member.partition(":")[2]
        parts = (self.iam, self.project, self.secrets, self.catalog, self.operations, self.network, disks, self.compute)
        self._routes: list[Route] = [route for part in parts for route in part.routes()]

    def answer(self, call: Call) -> Resource | Answer:
        """Answer one call; raises the API's refusal. Every call is noted with its caller."""
        if (call.service, call.path) == ("oauth2", "/token"):
            return self.project.laptop_token()
        action, member, status, error = f"{call.method} {call.path}", "?", 200, ""
        try:
            with self.lock:
                caller = self.iam.identify(call.headers.get("authorization", ""), call.service)
                member = caller.member
                self.project.check_enabled(call.service)
            call = replace(call, caller=caller)
            if call.service == "storage":
                action, answer = self.buckets.answer(call)
            else:
                action, answer = self._routed(call)
            if isinstance(answer, Answer):
                status = answer.status
            elif answer.get("kind") == "compute#operation" and call.method != "GET":
                error = answer.get("error", {}).get("errors", [{}])[0].get("code", "")
            return answer
        except Refusal as refusal:
            status, error = refusal.status, refusal.reason
            raise
        finally:
            name = self.caller_name(call.address, member)
            self.log.record(
                caller=name, address=call.address, service=call.service, action=action, status=status, error=error
            )

    def administer(self, service: str, method: str, path: str, body: Resource, query: dict[str, str]) -> Any:
        """Make a call that nobody may refuse and that is not in the log."""
        target = f"{path}?{urlencode(query)}" if query else path
        data = json.dumps(body).encode() if body else b""
        call = Call(service, method, path, query, {}, data, "", target, CLOUD)
        try:
            answer = self.buckets.answer(call)[1] if service == "storage" else self._routed(call)[1]
        except Refusal as refusal:
            raise ClusterError(f"{method} {path}: {refusal}") from refusal
        if not isinstance(answer, Answer):
            return answer
        if answer.status >= 400:
            raise ClusterError(f"{method} {path}: {answer.status} {answer.data.decode(errors='replace')}")
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        return json.loads(answer.data) if is_json else answer.data.decode(errors="replace")

    def _routed(self, call: Call) -> tuple[str, Resource | Answer]:
        for route in self._routes:
            names = route.match(call.service, call.method, call.path)
            if names is not None:
                call = replace(call, names=names)
                with self.lock:
                    self._check_project(call, route)
                    account, secret = names.get("account", ""), names.get("secret", "")
                    policies = [self.iam.account_policies.get(account, {}), self.secrets.policies.get(secret, {})]
                    self.iam.check(call.caller, route.permission, self._subject(call, route), policies)
                    return route.permission.partition(".")[2] or route.path, route.answer(call)
        project = re.search("/projects/([^/:]*)", call.path)
        if project and not _PROJECT_NAME.fullmatch(project[1]):
            raise Refusal(400, "badRequest", "Request contains an invalid argument.")
        raise Refusal(404, "notFound", f"not emulated: {call.method} {call.service}.googleapis.com{call.path}")

    def _check_project(self, call: Call, route: Route) -> None:
        project = call.names.get("project", self.iam.project)
        public = route.permission.startswith("compute.images.") and call.method == "GET"
        if project in (self.iam.project, self.iam.number) or public:
            return
        if call.service == "compute":
            raise Refusal(404, "notFound", f"The resource 'projects/{project}' was not found")
        raise Refusal(403, "forbidden", "The caller does not have permission")

    def _subject(self, call: Call, route: Route) -> Subject:
        """What is acted upon: the path without its verb; what is made is named by the body."""
        if call.service == "secretmanager":
            return self.secrets.subject(call.path)
        if call.service != "compute":
            return self.project.subject if "account" not in call.names else Subject(call.path.removeprefix("/v1/"))
        name = call.path.removeprefix("/compute/v1/")
        if "name" in call.names:
            name = re.split(rf"(?<=/{re.escape(call.names['name'])})(?:/|$)", name)[0]
        elif route.permission.endswith(".create"):
            name = f"{name}/{call.body.get('name', '')}"
        public = route.permission.startswith("compute.images.") and call.names["project"] != self.iam.project
        # The images that Google publishes are everybody's.
        return self.project.subject if public else subject_of(name)

    def _change_network(self, call: Call, kind: str, target: Resource) -> Resource:
        self.compute.changed.set()
        return self.operations.begin(call, kind, target)
