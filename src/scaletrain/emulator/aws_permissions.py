"""May this caller do that: the part of IAM's policy language that roles of a training cluster use.

Identity policies only: Effect, Action, NotAction, Resource, NotResource and Condition, with an explicit Deny first
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html). A condition operator
that is not known here counts as not met.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One thing to be allowed: an action ("ec2:RunInstances") on a resource's ARN (None: unknown, any matches)."""

    action: str
    resource: str | None = "*"
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


def is_allowed(policies: Iterable[Policy], request: Request) -> bool:
    """Tell whether some statement allows the request and none denies it."""
    allowed = False
    for policy in policies:
        statements = policy["Statement"]
        for statement in statements if isinstance(statements, list) else [statements]:
            if _concerns(statement, request):
                if statement["Effect"] == "Deny":
                    return False
                allowed = True
    return allowed


def _concerns(statement: Mapping[str, Any], request: Request) -> bool:
    if "Action" in statement:
        concerned = _any_matches(statement["Action"], request.action, ignore_case=True)
    else:
        concerned = not _any_matches(statement["NotAction"], request.action, ignore_case=True)
    if concerned and request.resource is not None:
        if "Resource" in statement:
            concerned = _any_matches(statement["Resource"], request.resource)
        elif "NotResource" in statement:
            concerned = not _any_matches(statement["NotResource"], request.resource)
    return concerned and all(
        _holds(operator, key, wanted, request.context)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, key: str, wanted: Any, context: Mapping[str, str | Sequence[str]]) -> bool:
    """Evaluate one condition: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html"""
    quantifier, _, name = operator.rpartition(":")
    found = next((value for each, value in context.items() if each.lower() == key.lower()), None)
    wanted_values = [str(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
    if name == "Null":
        return (found is None) == (wanted_values[0].lower() == "true")
    if found is None:
        return quantifier == "ForAllValues" or name.endswith("IfExists") or "Not" in name
    values = [found] if isinstance(found, str) else list(found)
    results = [_compares(name.removesuffix("IfExists"), value, wanted_values) for value in values]
    return all(results) if quantifier == "ForAllValues" else any(results)


def _compares(name: str, value: str, wanted: Sequence[str]) -> bool:
    if name.startswith(("StringNot", "ArnNot", "NotIpAddress")):
        return not _compares(name.replace("Not", "", 1), value, wanted)
    if name in ("StringLike", "ArnLike", "ArnEquals"):
        return any(_pattern(each, False).fullmatch(value) for each in wanted)
    if name == "StringEquals":
        return value in wanted
    if name in ("StringEqualsIgnoreCase", "Bool"):
        return value.lower() in [each.lower() for each in wanted]
    if name == "IpAddress":
        return any(ipaddress.ip_address(value) in ipaddress.ip_network(each, strict=False) for each in wanted)
    return False


def _any_matches(patterns: str | Sequence[str], value: str, *, ignore_case: bool = False) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(_pattern(each, ignore_case).fullmatch(value) is not None for each in listed)


@lru_cache(maxsize=1024)
def _pattern(text: str, ignore_case: bool) -> re.Pattern[str]:
    parts = re.split(r"([*?])", text)
    translated = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.compile(translated, re.IGNORECASE | re.DOTALL if ignore_case else re.DOTALL)
