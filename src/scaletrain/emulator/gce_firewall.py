"""What the rules of Google Cloud's networks mean for one machine, as a packet filter.

As there: what no rule admits does not come in, everything goes out, the rule with the lowest priority decides, and a
machine without a public address reaches the APIs only where its subnet has Private Google Access.
"""

from collections.abc import Sequence

from scaletrain.emulator import firewall
from scaletrain.emulator.gce_network import EVERYWHERE, Network, last_part
from scaletrain.emulator.google_request import Resource


def filter_text(
    network: Network, instance: Resource, others: Sequence[Resource], *, api: str, always: Sequence[str]
) -> str:
    """Return the packet filter of a machine; `api` is where Google's APIs are, `always` what is never filtered."""
    interface = instance["networkInterfaces"][0]
    own = last_part(interface["network"])
    foreign = tuple(
        each["networkInterfaces"][0]["networkIP"]
        for each in others
        if last_part(each["networkInterfaces"][0]["network"]) != own
    )
    incoming = [firewall.Rule("-1", None, None, foreign, admits=False)]
    outgoing = [firewall.Rule("-1", None, None, foreign, admits=False)]
    subnet = network.subnet_of(interface, instance["zone"].rpartition("/")[2].rpartition("-")[0])
    if not interface.get("accessConfigs") and not subnet.get("privateIpGoogleAccess"):
        outgoing.append(firewall.Rule("-1", None, None, (f"{api}/32",), admits=False))
    # Of two rules of one priority, the one that denies holds.
    for rule in sorted(network.rules.values(), key=lambda each: (each["priority"], "denied" not in each)):
        if last_part(rule["network"]) == own and not rule.get("disabled") and _is_target(rule, instance):
            into = rule["direction"] == "INGRESS"
            (incoming if into else outgoing).extend(_packet_rules(rule, _others_of(rule, others, own)))
    outgoing.append(firewall.Rule("-1", None, None, EVERYWHERE))
    return firewall.filter_text(incoming, outgoing, services=always)


def _emails(instance: Resource) -> set[str]:
    return {each["email"] for each in instance.get("serviceAccounts", [])}


def _tags(instance: Resource) -> set[str]:
    return {*instance.get("tags", {}).get("items", [])}


def _is_target(rule: Resource, instance: Resource) -> bool:
    if "targetTags" in rule:
        return bool(_tags(instance) & {*rule["targetTags"]})
    if "targetServiceAccounts" in rule:
        return bool(_emails(instance) & {*rule["targetServiceAccounts"]})
    return True


def _others_of(rule: Resource, instances: Sequence[Resource], network: str) -> tuple[str, ...]:
    """The networks and addresses at the other end of a rule's traffic: any that one of its fields names."""
    if rule["direction"] == "EGRESS":
        return tuple(rule.get("destinationRanges", EVERYWHERE))
    found = [each for each in rule.get("sourceRanges", []) if ":" not in each]
    for each in instances:
        interface = each["networkInterfaces"][0]
        tagged = _tags(each) & {*rule.get("sourceTags", [])}
        known = _emails(each) & {*rule.get("sourceServiceAccounts", [])}
        if last_part(interface["network"]) == network and (tagged or known):
            found.append(interface["networkIP"])
    return tuple(found)


def _packet_rules(rule: Resource, others: tuple[str, ...]) -> list[firewall.Rule]:
    admits = "allowed" in rule
    found = []
    for kind in rule["allowed" if admits else "denied"]:
        protocol = "-1" if kind["IPProtocol"] == "all" else str(kind["IPProtocol"])
        for ports in kind.get("ports") or [""]:
            first, _, last = str(ports).partition("-")
            lowest, highest = (int(first), int(last or first)) if first else (None, None)
            found.append(firewall.Rule(protocol, lowest, highest, others, admits))
    return found
