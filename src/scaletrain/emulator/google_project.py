"""The emulated project itself: Resource Manager, the APIs that are enabled in it, and who a token belongs to."""

from scaletrain.emulator import google_policy
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_iam import OWNER, Iam
from scaletrain.emulator.google_request import Call, Caller, Refusal, Resource, Route, page

_ENABLED = (
    "cloudbilling",
    "cloudresourcemanager",
    "compute",
    "iam",
    "iamcredentials",
    "oslogin",
    "secretmanager",
    "serviceusage",
    "storage",
)
_FREE = ("cloudbilling", "oauth2", "openidconnect", "serviceusage", "www")  # answer whatever is enabled
_LAPTOP = Caller(OWNER, ("https://www.googleapis.com/auth/cloud-platform", "openid", "email"))


class Project:
    """The project's own calls; the caller holds the cloud's lock."""

    def __init__(self, iam: Iam) -> None:
        self._iam = iam
        self.subject = Subject(
            f"projects/{iam.project}",
            "cloudresourcemanager.googleapis.com/Project",
            "cloudresourcemanager.googleapis.com",
        )
        self._services = dict.fromkeys((f"{name}.googleapis.com" for name in _ENABLED), "ENABLED")

    def check_enabled(self, service: str) -> None:
        """Refuse a call to an API that is not enabled in the project."""
        name = f"{service}.googleapis.com"
        if service not in _FREE and self._services.get(name) != "ENABLED":
            message = (
                f"{name} has not been used in project {self._iam.number} before or it is disabled. Enable it by "
                f"visiting https://console.developers.google.com/apis/api/{name}/overview?project={self._iam.number}"
            )
            raise Refusal(403, "accessNotConfigured", message)

    def routes(self) -> list[Route]:
        """What Resource Manager, Service Usage and the like answer."""
        own, services = "/v1/projects/{project}", "/v1/projects/{project}/services"
        manager, usage = "cloudresourcemanager", "serviceusage"
        return [
            Route(manager, "GET", own, "resourcemanager.projects.get", self._get),
            Route(manager, "POST", f"{own}:getIamPolicy", "resourcemanager.projects.getIamPolicy", self._get_policy),
            Route(manager, "POST", f"{own}:setIamPolicy", "resourcemanager.projects.setIamPolicy", self._set_policy),
            Route(manager, "POST", f"{own}:testIamPermissions", "", self._test),
            Route(usage, "GET", f"{services}/{{name}}", "serviceusage.services.get", self._get_service),
            Route(usage, "GET", services, "serviceusage.services.list", self._list_services),
            Route(usage, "POST", f"{services}/{{name}}:enable", "serviceusage.services.enable", self._enable),
            Route(usage, "POST", f"{services}/{{name}}:disable", "serviceusage.services.disable", self._disable),
            Route("openidconnect", "GET", "/v1/userinfo", "", self._who),
            Route("oauth2", "GET", "/tokeninfo", "", self._who),
            Route("www", "GET", "/oauth2/v3/userinfo", "", self._who),
        ]

    def laptop_token(self) -> Resource:
        """Answer the refresh of the credentials that `gcloud auth application-default login` leaves on the laptop."""
        return self._iam.issue_token(_LAPTOP)

    def _get(self, call: Call) -> Resource:
        name = self._iam.project
        return {
            "projectId": name,
            "name": name,
            "projectNumber": self._iam.number,
            "lifecycleState": "ACTIVE",
            "createTime": "2026-01-01T00:00:00.000Z",
        }

    def _get_policy(self, call: Call) -> Resource:
        version = int(call.body.get("options", {}).get("requestedPolicyVersion", 1))
        return google_policy.read(self._iam.policy, version)

    def _set_policy(self, call: Call) -> Resource:
        self._iam.policy = self._iam.replaced(self._iam.policy, call.body["policy"])
        return self._iam.policy

    def _test(self, call: Call) -> Resource:
        return self._iam.tested(call.caller, call, self.subject)

    def _service(self, name: str) -> Resource:
        return {
            "name": f"projects/{self._iam.number}/services/{name}",
            "config": {"name": name},
            "state": self._services.get(name, "DISABLED"),
            "parent": f"projects/{self._iam.number}",
        }

    def _get_service(self, call: Call) -> Resource:
        return self._service(call.names["name"])

    def _list_services(self, call: Call) -> Resource:
        wanted = call.query.get("filter", "").removeprefix("state:")
        found = [self._service(name) for name in self._services]
        return page(call, "services", [each for each in found if wanted in ("", each["state"])], key="services")

    def _enable(self, call: Call) -> Resource:
        self._services[call.names["name"]] = "ENABLED"
        return {"name": "operations/noop.DONE_OPERATION", "done": True, "response": {}}

    def _disable(self, call: Call) -> Resource:
        self._services[call.names["name"]] = "DISABLED"
        return {"name": "operations/noop.DONE_OPERATION", "done": True, "response": {}}

    def _who(self, call: Call) -> Resource:
        email = call.caller.member.partition(":")[2]
        return {"sub": "1" * 21, "email": email, "email_verified": True, "scope": " ".join(call.caller.scopes)}
