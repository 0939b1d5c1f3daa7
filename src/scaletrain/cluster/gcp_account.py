"""The Google Cloud project that a command talks to: its clients, and the place where its errors become ours."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from scaletrain.errors import AccessError, ClusterError, ConfigError, ScaletrainError

LABEL = "scaletrain-cluster"  # on everything that can bear labels and is made for a cluster; the value is its name
OPERATION_TIMEOUT_S = 600.0

_SETTLE_S = 90.0  # a new service account is known everywhere only after a while
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_VERSIONS = {"compute": "v1", "iam": "v1", "cloudresourcemanager": "v1", "serviceusage": "v1", "cloudbilling": "v1"}
_LOG_IN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
_NAME_ONE = "give --project my-project, or set GOOGLE_CLOUD_PROJECT"


@dataclass(frozen=True)
class Project:
    """A project in one region, seen by the caller's identity."""

    credentials: Any = field(repr=False)
    project_id: str
    number: str
    region: str
    identity: str
    _services: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def described(self) -> str:
        """Whose project this is, as a user reads it."""
        return f"Google Cloud project {self.project_id} in {self.region}, as {self.identity}"

    def service(self, name: str) -> Any:
        """Return the one client of a service, as compute, which gives up on a dead network within seconds."""
        if name not in self._services:
            self._services[name] = _build(name, self.credentials)
        return self._services[name]

    def storage(self) -> Any:
        """Return the one client of Cloud Storage."""
        from google.cloud.storage import Client

        if "storage" not in self._services:
            self._services["storage"] = Client(project=self.project_id, credentials=self.credentials)
        return self._services["storage"]


def connect(project_id: str | None, region: str) -> Project:
    """Return the project that is named, or else the caller's own; raises AccessError that says how to mend it."""
    import google.auth

    with google_errors("asking Google who you are"):
        credentials, own_project = google.auth.default(scopes=[_SCOPE])
    project_id = project_id or own_project
    if project_id is None:
        raise ConfigError(f"no project; {_NAME_ONE}")
    identity = getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or "yourself"
    manager = _build("cloudresourcemanager", credentials)
    with google_errors(f"looking at project {project_id}"):
        found = get_or_none(manager.projects().get(projectId=project_id))
    if found is None or found.get("lifecycleState") != "ACTIVE":
        raise ConfigError(f"there is no project {project_id} in use; {_NAME_ONE}. Yours: gcloud projects list")
    services = {"cloudresourcemanager": manager}
    return Project(credentials, project_id, str(found["projectNumber"]), region, str(identity), services)


def get_or_none(request: Any) -> dict[str, Any] | None:
    """Return Google's answer to a question, or None where it says that there is no such thing."""
    from googleapiclient.errors import HttpError

    try:
        return execute(request)
    except HttpError as error:
        if error.resp.status == 404:
            return None
        raise


def execute(request: Any) -> dict[str, Any]:
    """Send a request, again a few times where Google is busy."""
    answer: dict[str, Any] = request.execute(num_retries=3)
    return answer


def all_pages(collection: Any, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Return the entries of every page of a list."""
    request = collection.list(**arguments)
    while request is not None:
        answer = execute(request)
        yield from answer.get("items", ())
        request = collection.list_next(request, answer)


def all_scopes(collection: Any, kind: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Return the entries of one kind, as "disks", in every zone and region."""
    request = collection.aggregatedList(**arguments)
    while request is not None:
        answer = execute(request)
        for scope in answer.get("items", {}).values():
            yield from scope.get(kind, ())
        request = collection.aggregatedList_next(request, answer)


def finish(project: Project, request: Any, *, timeout_s: float = OPERATION_TIMEOUT_S) -> dict[str, Any]:
    """Send a request to Compute Engine and wait until its operation has ended; raises ClusterError where it failed."""
    compute = project.service("compute")
    operation = execute(request)
    deadline = time.monotonic() + timeout_s
    while operation["status"] != "DONE":
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the operation {operation['name']} has not ended after {timeout_s:g} s; look at it with `gcloud "
                f"compute operations list --project {project.project_id}`, then run the command again"
            )
        time.sleep(1)
        place = {"project": project.project_id, "operation": operation["name"]}
        if "zone" in operation:
            operations, place["zone"] = compute.zoneOperations(), last_part(operation["zone"])
        elif "region" in operation:
            operations, place["region"] = compute.regionOperations(), last_part(operation["region"])
        else:
            operations = compute.globalOperations()
        operation = execute(operations.get(**place))
    if "error" in operation:
        failures = operation["error"].get("errors") or [{}]
        shown = "; ".join(f"{each.get('message', '')} ({each.get('code', 'no code')})" for each in failures)
        raise ClusterError(f"{operation.get('operationType', 'the operation')} failed: {shown}; then try again")
    return operation


def patiently(action: Callable[[], object]) -> None:
    """Do something until it goes through: accounts just made are not known everywhere, policies change meanwhile."""
    from google.api_core.exceptions import GoogleAPICallError
    from googleapiclient.errors import HttpError

    deadline = time.monotonic() + _SETTLE_S
    while True:
        try:
            action()
            return
        except (HttpError, GoogleAPICallError) as error:
            status = int(error.resp.status if isinstance(error, HttpError) else error.code or 0)
            unknown_yet = status == 404 or (status == 400 and "does not exist" in str(error))
            if not (unknown_yet or status in (409, 412)) or time.monotonic() > deadline:
                raise
        time.sleep(2)


def last_part(url: str) -> str:
    """Return the name at the end of Google's URL or path of a thing."""
    return url.rpartition("/")[2]


@contextmanager
def google_errors(doing: str) -> Iterator[None]:
    """Raise what Google's libraries raise inside as AccessError or ClusterError that begins with `doing`."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from googleapiclient.errors import HttpError
    from httplib2 import HttpLib2Error

    try:
        yield
    except ScaletrainError as error:
        if type(error) is ClusterError and not str(error).startswith(doing):
            raise ClusterError(f"{doing}: {error}") from error
        raise
    except HttpError as error:
        raise _translate_answer(doing, error.resp.status, _body(error)) from error
    except GoogleAPIError as error:  # of Cloud Storage
        status = int(getattr(error, "code", None) or 0)
        raise _translate_answer(doing, status, {"message": getattr(error, "message", str(error))}) from error
    except GoogleAuthError as error:
        if type(error).__name__ == "TransportError":
            raise ClusterError(f"{doing}: no answer ({error}); check the network and the proxy") from error
        raise AccessError(f"{doing}: no usable Google credentials ({_first_line(error)}); {_LOG_IN}") from error
    except (HttpLib2Error, OSError) as error:
        raise ClusterError(f"{doing}: no answer ({error}); check the network and the proxy") from error


def _build(name: str, credentials: Any) -> Any:
    import google_auth_httplib2
    import httplib2
    from googleapiclient import discovery

    logging.getLogger("googleapiclient.http").setLevel(logging.ERROR)  # each refusal is told by us
    http = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http(timeout=60))
    return discovery.build(name, _VERSIONS[name], http=http, cache_discovery=False, static_discovery=True)


def _body(error: Any) -> dict[str, Any]:
    try:
        found = json.loads(error.content)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": str(error.reason)}
    return found if isinstance(found, dict) else {"message": str(found)}


def _translate_answer(doing: str, status: int, body: dict[str, Any]) -> ScaletrainError:
    message = str(body.get("message", "")).strip()
    reasons = {str(each.get("reason")) for each in [*body.get("errors", ()), *body.get("details", ())]}
    if status == 401:
        return AccessError(f"{doing}: Google refused your credentials ({message}); {_LOG_IN}")
    if reasons & {"SERVICE_DISABLED", "accessNotConfigured"}:
        names = (each.get("metadata", {}).get("service") for each in body.get("details", ()))
        service = next((name for name in names if name), "the service that is named there")
        return AccessError(f"{doing}: {service} is not switched on ({message}); run: gcloud services enable {service}")
    if reasons & {"BILLING_DISABLED", "billingNotEnabled"}:
        page = "https://console.cloud.google.com/billing/projects"
        return AccessError(f"{doing}: the project has no billing account ({message}); link one at {page}")
    if status == 403:
        return AccessError(
            f"{doing}: you are not allowed to ({message}); ask the project's owner for that right: "
            "https://console.cloud.google.com/iam-admin/iam"
        )
    if "resourceInUseByAnotherResource" in reasons:
        return ClusterError(f"{doing}: still in use ({message}); run `ray down`, wait a minute, and try again")
    return ClusterError(f"{doing}: Google answered {status or 'nothing'}: {message}; mend that, then try again")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
