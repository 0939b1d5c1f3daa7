"""What may a role do: asked of IAM's own simulator, or read from its policies where there is none to ask."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaletrain.cluster.aws_account import Account, aws_errors, error_code

_MISSING = {"implicitDeny": "not allowed", "explicitDeny": "forbidden"}
_CANNOT_SIMULATE = {"NotImplemented", "InvalidAction", "501", "404", "500"}


@dataclass
class RoleJudge:
    """Says what roles may do: by IAM's own simulator, or by reading their policies once that proves to be missing."""

    account: Account
    simulates: bool = True

    def denied(
        self, role: str, actions: Sequence[str], resource: str, context: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Return the actions that a role may not do, and whether they are forbidden or just not allowed."""
        with aws_errors(f"asking what role {role} may do"):
            if self.simulates:
                answer = self._simulate(role, actions, resource, context or {})
                if answer is not None:
                    return answer
                self.simulates = False
            statements = _statements(self.account.client("iam"), role)
        return {each: "not allowed" for each in actions if not _allows(statements, each, resource)}

    def _simulate(
        self, role: str, actions: Sequence[str], resource: str, context: dict[str, str]
    ) -> dict[str, str] | None:
        """Return the simulator's answer, or None where this AWS (an emulated one) has none."""
        from botocore.exceptions import ClientError
        from botocore.parsers import ResponseParserError

        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        try:
            answer = self.account.client("iam").simulate_principal_policy(
                PolicySourceArn=f"arn:{self.account.partition}:iam::{self.account.account_id}:role/{role}",
                ActionNames=list(actions),
                ResourceArns=[resource],
                ContextEntries=entries,
            )
        except ResponseParserError:
            return None
        except ClientError as error:
            if error_code(error) in _CANNOT_SIMULATE:
                return None
            raise
        return {
            str(each["EvalActionName"]): _MISSING[each["EvalDecision"]]
            for each in answer["EvaluationResults"]
            if each["EvalDecision"] in _MISSING
        }


def _statements(iam: Any, role: str) -> list[dict[str, Any]]:
    documents = [
        iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
        policy = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)
        documents.append(policy["PolicyVersion"]["Document"])
    return [each for document in documents for each in _as_list(document["Statement"])]


def _allows(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    """Read policies without their conditions: enough to find a right that is missing altogether."""
    matching = [
        each["Effect"]
        for each in statements
        if any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in _as_list(each.get("Action", [])))
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in _as_list(each.get("Resource", [])))
    ]
    return "Allow" in matching and "Deny" not in matching


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
