"""What an HTTP request asks of Google's APIs, and how a refusal must look."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Resource = dict[str, Any]  # in the form that the API documents
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
}


@dataclass(frozen=True)
class Caller:
    """Who asks: a member of IAM's policies, with the scopes of the token."""

    member: str
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """One request to `service`.googleapis.com; `names` are the parts of its path that a route names."""

    service: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    data: bytes
    address: str
    target: str = ""  # path and query as they came
    caller: Caller = Caller("")
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Resource:
        """The JSON that the request carries."""
        try:
            return dict(json.loads(self.data or b"{}"))
        except ValueError:
            raise Refusal(400, "parseError", "Parse Error") from None


@dataclass(frozen=True)
class Answer:
    """An answer that is not JSON, or is more than that."""

    data: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """What answers a method and a path (`/projects/{project}`); `permission` is what the caller needs for it."""

    service: str
    method: str
    path: str
    permission: str
    answer: Callable[[Call], Resource | Answer]

    def match(self, service: str, method: str, path: str) -> dict[str, str] | None:
        """Return the named parts of a path, or None where it is another's."""
        if (service, method) != (self.service, self.method):
            return None
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", self.path)
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found else None


class Refusal(Exception):
    """An error of Google's: its HTTP status, its reason and its message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message

    def render(self) -> bytes:
        """Return the body that clients understand, old and new ones."""
        error = {
            "code": self.status,
            "message": self.message,
            "errors": [{"message": self.message, "domain": "global", "reason": self.reason}],
            "status": _STATUS.get(self.status, "UNKNOWN"),
        }
        return json.dumps({"error": error}).encode()


def not_found(what: str) -> Refusal:
    """The refusal of Compute Engine for something that is not there."""
    return Refusal(404, "notFound", f"The resource '{what}' was not found")


def page(call: Call, kind: str, found: Sequence[Resource], *, key: str = "items") -> Resource:
    """Return one page of a list, as `maxResults` or `pageSize` wants it; without results the key is missing."""
    size = int(call.query.get("maxResults") or call.query.get("pageSize") or 500)
    start = int(call.query.get("pageToken") or 0)
    answer: Resource = {"kind": kind, "id": call.path}
    if found[start : start + size]:
        answer[key] = list(found[start : start + size])
    if start + size < len(found):
        answer["nextPageToken"] = str(start + size)
    return answer
