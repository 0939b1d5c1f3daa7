"""Secret Manager: secrets with their versions and policies."""

import re
import secrets

from scaletrain.emulator import google_policy
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_iam import Iam
from scaletrain.emulator.google_request import Call, Refusal, Resource, Route, page

_SERVICE = "secretmanager.googleapis.com"


class Secrets:
    """The project's secrets by their names; the caller holds the cloud's lock."""

    def __init__(self, iam: Iam) -> None:
        self._iam = iam
        self._secrets: dict[str, Resource] = {}
        self._versions: dict[str, list[str]] = {}
        self.policies: dict[str, Resource] = {}

    def routes(self) -> list[Route]:
        """What Secret Manager answers."""
        own, service = "/v1/projects/{project}/secrets", "secretmanager"
        one, version = f"{own}/{{secret}}", f"{own}/{{secret}}/versions/{{version}}"
        return [
            Route(service, "GET", own, "secretmanager.secrets.list", self._list),
            Route(service, "POST", own, "secretmanager.secrets.create", self._create),
            Route(service, "GET", one, "secretmanager.secrets.get", self._found),
            Route(service, "DELETE", one, "secretmanager.secrets.delete", self._delete),
            Route(service, "POST", f"{one}:addVersion", "secretmanager.versions.add", self._add),
            Route(service, "GET", f"{version}:access", "secretmanager.versions.access", self._access),
            Route(service, "GET", f"{one}:getIamPolicy", "secretmanager.secrets.getIamPolicy", self._get_policy),
            Route(service, "POST", f"{one}:setIamPolicy", "secretmanager.secrets.setIamPolicy", self._set_policy),
        ]

    def subject(self, path: str) -> Subject:
        """Return what a condition may ask: the name has the project's number, whatever the path has."""
        name = re.sub(r"^/v1/projects/[^/]+", f"projects/{self._iam.number}", path.partition(":")[0])
        return Subject(name, f"{_SERVICE}/{'SecretVersion' if '/versions/' in name else 'Secret'}", _SERVICE)

    def _list(self, call: Call) -> Resource:
        return page(call, "secrets", [*self._secrets.values()], key="secrets")

    def _create(self, call: Call) -> Resource:
        name = call.query["secretId"]
        if name in self._secrets:
            raise Refusal(409, "alreadyExists", f"Secret [projects/{self._iam.number}/secrets/{name}] already exists.")
        full = f"projects/{self._iam.number}/secrets/{name}"
        self._secrets[name] = {**call.body, "name": full, "etag": secrets.token_hex(6)}
        self._versions[name] = []
        self.policies[name] = google_policy.new_policy()
        return self._secrets[name]

    def _found(self, call: Call) -> Resource:
        name = call.names["secret"]
        if name not in self._secrets:
            raise Refusal(404, "notFound", f"Secret [projects/{self._iam.number}/secrets/{name}] not found.")
        return self._secrets[name]

    def _delete(self, call: Call) -> Resource:
        self._found(call)
        for each in (self._secrets, self._versions, self.policies):
            del each[call.names["secret"]]
        return {}

    def _add(self, call: Call) -> Resource:
        full, versions = self._found(call)["name"], self._versions[call.names["secret"]]
        versions.append(call.body["payload"]["data"])
        return {"name": f"{full}/versions/{len(versions)}", "state": "ENABLED"}

    def _access(self, call: Call) -> Resource:
        full, versions = self._found(call)["name"], self._versions[call.names["secret"]]
        wanted = call.names["version"]
        number = len(versions) if wanted == "latest" else int(wanted) if wanted.isdigit() else 0
        if not 1 <= number <= len(versions):
            raise Refusal(404, "notFound", f"Secret Version [{full}/versions/{wanted}] not found.")
        return {"name": f"{full}/versions/{number}", "payload": {"data": versions[number - 1]}}

    def _get_policy(self, call: Call) -> Resource:
        self._found(call)
        version = int(call.query.get("options.requestedPolicyVersion", 1))
        return google_policy.read(self.policies[call.names["secret"]], version)

    def _set_policy(self, call: Call) -> Resource:
        self._found(call)
        name = call.names["secret"]
        self.policies[name] = self._iam.replaced(self.policies[name], call.body["policy"])
        return self.policies[name]
