"""The operations of Compute Engine: what a change answers, and what it came to when it is done."""

import secrets
import time
from typing import Any

from scaletrain.emulator.gce_catalog import URL
from scaletrain.emulator.google_request import Call, Resource, Route, not_found

_STATUS = {
    "QUOTA_EXCEEDED": (403, "FORBIDDEN"),
    "ZONE_RESOURCE_POOL_EXHAUSTED": (503, "SERVICE UNAVAILABLE"),
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": (503, "SERVICE UNAVAILABLE"),
}


class Operations:
    """Every operation so far; each is done `lasts_s` after its begin."""

    def __init__(self, project: str, lasts_s: float) -> None:
        self._project = project
        self._lasts_s = lasts_s
        self._operations: dict[str, tuple[Resource, float]] = {}

    def begin(self, call: Call, kind: str, target: Resource, *, error: tuple[str, str] | None = None) -> Resource:
        """Return the operation that changes a resource, or ends in an error (code, message)."""
        name = f"operation-{int(time.time() * 1000)}-{secrets.token_hex(6)}"
        scopes = {key: call.names[key] for key in ("zone", "region") if key in call.names}
        place = "".join(f"{key}s/{value}" for key, value in scopes.items()) or "global"
        operation: dict[str, Any] = {
            "kind": "compute#operation",
            "id": str(secrets.randbits(62)),
            "name": name,
            "operationType": kind,
            "targetLink": target["selfLink"],
            "user": call.caller.member.partition(":")[2],
            "status": "DONE",
            "progress": 100,
            "insertTime": _now(),
            "selfLink": f"{URL}/{self._project}/{place}/operations/{name}",
            **{key: f"{URL}/{self._project}/{key}s/{value}" for key, value in scopes.items()},
        }
        if error is not None:
            status, text = _STATUS.get(error[0], (400, "BAD REQUEST"))
            operation |= {
                "error": {"errors": [{"code": error[0], "message": error[1]}]},
                "httpErrorStatusCode": status,
                "httpErrorMessage": text,
            }
        self._operations[name] = (operation, time.monotonic() + self._lasts_s)
        return self._shown(name)

    def routes(self) -> list[Route]:
        """What is answered about operations."""
        own = "/compute/v1/projects/{project}"
        kinds = {"zones/{zone}": "zone", "regions/{region}": "region", "global": "global"}
        found = []
        for place, kind in kinds.items():
            path, permission = f"{own}/{place}/operations/{{name}}", f"compute.{kind}Operations.get"
            found.append(Route("compute", "GET", path, permission, self._get))
            # Which may answer before the operation is done.
            found.append(Route("compute", "POST", f"{path}/wait", permission, self._get))
        return found

    def _get(self, call: Call) -> Resource:
        name = call.names["name"]
        if name not in self._operations:
            raise not_found(call.path.removeprefix("/compute/v1/"))
        return self._shown(name)

    def _shown(self, name: str) -> Resource:
        operation, done_at = self._operations[name]
        if time.monotonic() >= done_at:
            return operation
        unfinished = {key: value for key, value in operation.items() if not key.startswith(("error", "httpError"))}
        return {**unfinished, "status": "RUNNING", "progress": 0}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000-00:00", time.gmtime())
