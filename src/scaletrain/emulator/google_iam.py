"""The emulated project's identities: tokens, service accounts, roles, and what they are allowed to do."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from scaletrain.emulator import google_policy
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_request import Call, Caller, Refusal, Resource, Route, page
from scaletrain.emulator.google_roles import PREDEFINED

OWNER = "user:owner@example.com"
CLOUD = Caller("cloud", ("https://www.googleapis.com/auth/cloud-platform",))
TOKEN_LASTS_S = 3599
_SCOPE = "https://www.googleapis.com/auth/"
_SCOPES = {
    "compute": ("compute",),
    "storage": ("devstorage.full_control", "devstorage.read_write", "devstorage.read_only"),
}


class Iam:
    """All of it; the caller holds the cloud's lock."""

    def __init__(self, project: str, number: str) -> None:
        self.project = project
        self.number = number
        self.accounts: dict[str, Resource] = {}
        self.account_policies: dict[str, Resource] = {}
        self.roles: dict[str, Resource] = {}
        self.policy = google_policy.new_policy([{"role": "roles/owner", "members": [OWNER]}])
        self._tokens: dict[str, tuple[Caller, float]] = {}

    # --- Who asks, and may they --------------------------------------------------------------------------------------

    def issue_token(self, caller: Caller) -> Resource:
        """Hand out a token, the same until half of its time is over; a disabled account gets none."""
        email = caller.member.partition(":")[2]
        if self.accounts.get(email, {}).get("disabled"):
            raise Refusal(403, "forbidden", f"Service account {email} is disabled.")
        now = time.time()
        for token, (owner, ends_at) in self._tokens.items():
            if owner == caller and ends_at - now > TOKEN_LASTS_S / 2:
                return {"access_token": token, "expires_in": int(ends_at - now), "token_type": "Bearer"}
        token = f"ya29.{secrets.token_urlsafe(40)}"
        self._tokens[token] = (caller, now + TOKEN_LASTS_S)
        return {"access_token": token, "expires_in": TOKEN_LASTS_S, "token_type": "Bearer"}

    def identify(self, authorization: str, service: str) -> Caller:
        """Find out whose token it is; refuses strangers, and scopes that the service does not take."""
        caller, ends_at = self._tokens.get(authorization.removeprefix("Bearer "), (Caller(""), 0.0))
        email = caller.member.partition(":")[2]
        gone = caller.member.startswith("serviceAccount:") and self.accounts.get(email, {"disabled": True}).get(
            "disabled"
        )
        if ends_at < time.time() or gone:
            message = (
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential."
            )
            raise Refusal(401, "authError", message)
        known = [_SCOPE + each for each in ("cloud-platform", *_SCOPES.get(service, ()))]
        if not set(known) & set(caller.scopes):
            raise Refusal(403, "insufficientPermissions", "Request had insufficient authentication scopes.")
        return caller

    def allows(self, caller: Caller, permission: str, subject: Subject, policies: Sequence[Resource] = ()) -> bool:
        """Tell whether the project's policy, or one of the resource's own, gives the caller a permission."""
        if caller == CLOUD or not permission:
            return True
        every = [self.policy, *policies]
        return google_policy.allows(every, caller.member, permission, subject, self.permissions_of)

    def check(self, caller: Caller, permission: str, subject: Subject, policies: Sequence[Resource] = ()) -> None:
        """Refuse a call that the caller has no permission for."""
        if not self.allows(caller, permission, subject, policies):
            message = f"Required '{permission}' permission for '{subject.name}'"
            raise Refusal(403, "forbidden", message)

    def permissions_of(self, role: str) -> list[str] | None:
        """Return a role's permissions; None where there is no such role."""
        if role in PREDEFINED:
            return PREDEFINED[role]
        found = self.roles.get(role)
        if found is None:
            return None
        return [] if found.get("deleted") else list(found.get("includedPermissions", []))

    def member_exists(self, member: str) -> bool:
        """Tell whether a policy may name a member: of service accounts, those of this project are known."""
        email = member.partition(":")[2]
        own = member.startswith("serviceAccount:") and email.endswith(f"@{self.project}.iam.gserviceaccount.com")
        return not own or email in self.accounts

    def may_act_as(self, caller: Caller, email: str) -> None:
        """Refuse the use of a service account that the caller may not be."""
        account = self.account(email)
        subject = Subject(account["name"], "iam.googleapis.com/ServiceAccount", "iam.googleapis.com")
        if not self.allows(caller, "iam.serviceAccounts.actAs", subject, [self.account_policies[email]]):
            message = f"The user does not have access to service account '{email}'.  User: '{caller.member}'."
            raise Refusal(403, "forbidden", message)

    def tested(self, caller: Caller, call: Call, subject: Subject, policies: Sequence[Resource] = ()) -> Resource:
        """Answer testIamPermissions."""
        wanted = [each for each in call.body.get("permissions", []) if self.allows(caller, each, subject, policies)]
        return {"permissions": wanted} if wanted else {}

    # --- Service accounts --------------------------------------------------------------------------------------------

    def account(self, name: str) -> Resource:
        """Return a service account by its address or unique id."""
        for email, account in self.accounts.items():
            if name in (email, account["uniqueId"]):
                return account
        raise Refusal(404, "notFound", f"Unknown service account: {name}")

    def routes(self) -> list[Route]:
        """What IAM answers."""
        own = "/v1/projects/{project}"
        account, role = f"{own}/serviceAccounts/{{account}}", f"{own}/roles/{{role}}"
        return [
            Route("iam", "GET", f"{own}/serviceAccounts", "iam.serviceAccounts.list", self._list_accounts),
            Route("iam", "POST", f"{own}/serviceAccounts", "iam.serviceAccounts.create", self._create_account),
            Route("iam", "GET", account, "iam.serviceAccounts.get", self._named),
            Route("iam", "DELETE", account, "iam.serviceAccounts.delete", self._delete_account),
            Route("iam", "POST", f"{account}:disable", "iam.serviceAccounts.disable", self._disable_account),
            Route("iam", "POST", f"{account}:enable", "iam.serviceAccounts.enable", self._enable_account),
            Route("iam", "POST", f"{account}:getIamPolicy", "iam.serviceAccounts.getIamPolicy", self._get_policy),
            Route("iam", "POST", f"{account}:setIamPolicy", "iam.serviceAccounts.setIamPolicy", self._set_policy),
            Route("iam", "POST", f"{account}:testIamPermissions", "", self._test_account),
            Route("iam", "GET", "/v1/roles/{role}", "", self._predefined),
            Route("iam", "GET", f"{own}/roles", "iam.roles.list", self._list_roles),
            Route("iam", "GET", role, "iam.roles.get", self._role),
            Route("iam", "POST", f"{own}/roles", "iam.roles.create", self._create_role),
            Route("iam", "PATCH", role, "iam.roles.update", self._patch_role),
            Route("iam", "DELETE", role, "iam.roles.delete", self._delete_role),
            Route("iam", "POST", f"{role}:undelete", "iam.roles.undelete", self._undelete_role),
        ]

    def _list_accounts(self, call: Call) -> Resource:
        return page(call, "accounts", [*self.accounts.values()], key="accounts")

    def _create_account(self, call: Call) -> Resource:
        body = call.body
        email = f"{body['accountId']}@{self.project}.iam.gserviceaccount.com"
        if email in self.accounts:
            message = f"Service account {body['accountId']} already exists within project projects/{self.project}."
            raise Refusal(409, "alreadyExists", message)
        unique_id = str(10**20 + secrets.randbelow(10**20))
        self.accounts[email] = {
            "name": f"projects/{self.project}/serviceAccounts/{email}",
            "projectId": self.project,
            "uniqueId": unique_id,
            "email": email,
            "oauth2ClientId": unique_id,
            **{key: body.get("serviceAccount", {}).get(key, "") for key in ("displayName", "description")},
        }
        self.account_policies[email] = google_policy.new_policy()
        return self.accounts[email]

    def _named(self, call: Call) -> Resource:
        return self.account(call.names["account"])

    def _delete_account(self, call: Call) -> Resource:
        account = self._named(call)
        del self.accounts[account["email"]], self.account_policies[account["email"]]
        self.policy = google_policy.without_account(self.policy, account["email"], account["uniqueId"])
        return {}

    def _disable_account(self, call: Call) -> Resource:
        self._named(call)["disabled"] = True
        return {}

    def _enable_account(self, call: Call) -> Resource:
        self._named(call).pop("disabled", None)
        return {}

    def _get_policy(self, call: Call) -> Resource:
        version = int(call.query.get("options.requestedPolicyVersion", 1))
        return google_policy.read(self.account_policies[self._named(call)["email"]], version)

    def _set_policy(self, call: Call) -> Resource:
        email = self._named(call)["email"]
        self.account_policies[email] = self.replaced(self.account_policies[email], call.body["policy"])
        return self.account_policies[email]

    def replaced(self, old: Resource, wanted: Resource) -> Resource:
        """Return the policy that replaces another."""
        return google_policy.write(old, wanted, permissions_of=self.permissions_of, member_exists=self.member_exists)

    def _test_account(self, call: Call) -> Resource:
        account = self._named(call)
        subject = Subject(account["name"], "iam.googleapis.com/ServiceAccount", "iam.googleapis.com")
        return self.tested(call.caller, call, subject, [self.account_policies[account["email"]]])

    # --- Roles -------------------------------------------------------------------------------------------------------

    def _predefined(self, call: Call) -> Resource:
        name = f"roles/{call.names['role']}"
        if name not in PREDEFINED:
            raise Refusal(404, "notFound", f"The role named {name} was not found.")
        return {"name": name, "title": name, "includedPermissions": PREDEFINED[name], "stage": "GA"}

    def _list_roles(self, call: Call) -> Resource:
        all_of_them = call.query.get("showDeleted") == "true"
        found = [each for each in self.roles.values() if all_of_them or not each.get("deleted")]
        return page(call, "roles", found, key="roles")

    def _role(self, call: Call) -> Resource:
        name = f"projects/{self.project}/roles/{call.names['role']}"
        if name not in self.roles:
            raise Refusal(404, "notFound", f"The role named {name} was not found.")
        return self.roles[name]

    def _create_role(self, call: Call) -> Resource:
        name = f"projects/{self.project}/roles/{call.body['roleId']}"
        if name in self.roles:
            deleted = " It is marked for deletion; undelete it." if self.roles[name].get("deleted") else ""
            raise Refusal(409, "alreadyExists", f"A role named {name} already exists.{deleted}")
        self.roles[name] = {"stage": "ALPHA", **call.body.get("role", {}), "name": name, "etag": _etag()}
        return self.roles[name]

    def _patch_role(self, call: Call) -> Resource:
        role = self._role(call)
        body: dict[str, Any] = call.body
        if body.get("etag", role["etag"]) != role["etag"]:
            raise Refusal(409, "conflict", "There were concurrent changes of the role.")
        fields = call.query.get("updateMask", ",".join(body)).split(",")
        role |= {key: body[key] for key in fields if key in body and key not in ("name", "etag")}
        role["etag"] = _etag()
        return role

    def _delete_role(self, call: Call) -> Resource:
        role = self._role(call)
        role["deleted"] = True
        return role

    def _undelete_role(self, call: Call) -> Resource:
        role = self._role(call)
        role.pop("deleted", None)
        return role


def _etag() -> str:
    return secrets.token_urlsafe(9)
