"""The doors of a cluster on Google Cloud: three firewall rules for its machines' tag, and the way to Google's APIs."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scaletrain.cluster.gcp_account import Project, all_pages, execute, finish, get_or_none, google_errors, last_part
from scaletrain.cluster.gcp_plan import Wanted
from scaletrain.cluster.plan import Step
from scaletrain.errors import ConfigError

_OURS = "scaletrain: machines of the cluster "  # begins the description of the rules that are ours


def find_network(project: Project, name: str) -> str:
    """Return the name of a network that is there."""
    with google_errors("looking for the network"):
        networks = project.service("compute").networks()
        found = get_or_none(networks.get(project=project.project_id, network=name))
    if found is None:
        raise ConfigError(
            f"no network {name} in {project.project_id}; name another with --network, or make it: gcloud compute "
            f"networks create {name} --subnet-mode=auto --project {project.project_id}"
        )
    return str(found["name"])


def find_subnet(project: Project, network: str, *, current: str | None) -> str:
    """Return the path of the network's subnet in the region; the one in use if it is one of them."""
    compute = project.service("compute")
    with google_errors("looking for a subnet"):
        found = list(all_pages(compute.subnetworks(), project=project.project_id, region=project.region))
    names = sorted(str(each["name"]) for each in found if last_part(each["network"]) == network)
    if not names:
        raise ConfigError(
            f"the network {network} has no subnet in {project.region}; make one with `gcloud compute networks subnets "
            f"create`, or give another --network or --region"
        )
    paths = [f"projects/{project.project_id}/regions/{project.region}/subnetworks/{name}" for name in names]
    return current if current in paths else paths[0]


def find_zone(project: Project, machine_types: Iterable[str], *, wanted: str | None, current: str | None) -> str:
    """Return a zone of the region that has all machine types: the one asked for, or that in use if it will do."""
    compute = project.service("compute")
    needed = sorted(set(machine_types))
    with google_errors(f"looking at region {project.region}"):
        region = get_or_none(compute.regions().get(project=project.project_id, region=project.region))
        if region is None:
            raise ConfigError(f"Google Cloud has no region {project.region}; give one with --region, as us-central1")
        zones = sorted(last_part(zone) for zone in region["zones"])
        if wanted is not None and wanted not in zones:
            raise ConfigError(f"--zone: {project.region} has no zone {wanted}; choose one of {', '.join(zones)}")
        order = [wanted] if wanted else sorted(zones, key=lambda zone: zone != current)
        lacking = {}
        for zone in order:
            lacking[zone] = [each for each in needed if machine_type(project, zone, each) is None]
            if not lacking[zone]:
                return zone
    shown = "; ".join(f"{zone} lacks {', '.join(missing)}" for zone, missing in lacking.items())
    raise ConfigError(f"no zone of {project.region} has all of the file's machine types: {shown}; change the types")


def machine_type(project: Project, zone: str, name: str) -> dict[str, Any] | None:
    """Return what Google says of a machine type in a zone, or None where the zone does not have it."""
    types = project.service("compute").machineTypes()
    return get_or_none(types.get(project=project.project_id, zone=zone, machineType=last_part(name)))


def firewall_steps(project: Project, wanted: Wanted) -> list[Step]:
    """Compare the three rules with what they should be. Others' rules stay: ours come before them, for our machines."""
    firewalls = project.service("compute").firewalls()
    steps = []
    for rule, detail in rules_of(wanted):
        what = f"firewall rule {rule['name']}"
        with google_errors(f"looking at {what}"):
            there = get_or_none(firewalls.get(project=project.project_id, firewall=rule["name"]))
        if there is None:
            steps.append(Step(what, "make", detail, _act(project, what, "insert", body=rule)))
            continue
        if not str(there.get("description", "")).startswith(_OURS):
            raise ConfigError(
                f"there is a {what} already that is not this cluster's; choose another cluster_name, or remove it: "
                f"gcloud compute firewall-rules delete {rule['name']} --project {project.project_id}"
            )
        if last_part(there["network"]) != wanted.network:
            raise ConfigError(
                f"{what} is for the network {last_part(there['network'])}, you asked for {wanted.network}; run init "
                "with --destroy first, or with the same --network"
            )
        if _same(there, rule):
            steps.append(Step(what, "", detail))
        else:
            steps.append(
                Step(what, "change", detail, _act(project, what, "patch", firewall=rule["name"], body=_patch_of(rule)))
            )
    return steps


def firewall_removal_steps(project: Project, wanted: Wanted) -> list[Step]:
    """Say which rules go: those that are ours."""
    firewalls = project.service("compute").firewalls()
    steps = []
    for rule, _ in rules_of(wanted):
        what = f"firewall rule {rule['name']}"
        with google_errors(f"looking at {what}"):
            there = get_or_none(firewalls.get(project=project.project_id, firewall=rule["name"]))
        if there is not None and str(there.get("description", "")).startswith(_OURS):
            steps.append(Step(what, "remove", "", _act(project, what, "delete", firewall=rule["name"])))
    return steps


def private_access_step(project: Project, wanted: Wanted) -> Step:
    """The way from the subnet to the bucket that needs no public address, costs nothing and stays off the internet."""
    subnets = project.service("compute").subnetworks()
    name = last_part(wanted.subnet)
    what = f"Private Google Access of subnet {name}"
    place = {"project": project.project_id, "region": project.region, "subnetwork": name}
    with google_errors(f"looking at {what}"):
        if execute(subnets.get(**place)).get("privateIpGoogleAccess"):
            return Step(what, "")

    def switch_on() -> None:
        with google_errors(f"switching on {what}"):
            finish(project, subnets.setPrivateIpGoogleAccess(**place, body={"privateIpGoogleAccess": True}))

    return Step(what, "change", "free, and the bucket stays off the internet", switch_on)


def rules_for(project: Project, network: str, tags: set[str]) -> Iterator[dict[str, Any]]:
    """Return the rules of a network that concern incoming traffic to machines with these tags, first ones first."""
    compute = project.service("compute")
    rules = [
        rule
        for rule in all_pages(compute.firewalls(), project=project.project_id)
        if last_part(rule["network"]) == network
        and rule.get("direction", "INGRESS") == "INGRESS"
        and not rule.get("disabled")
        and not rule.get("targetServiceAccounts")
        and (not rule.get("targetTags") or tags & set(rule["targetTags"]))
    ]
    # Where two rules come at the same place, the one that denies counts.
    yield from sorted(rules, key=lambda rule: (rule.get("priority", 1000), "allowed" in rule))


def rules_of(wanted: Wanted) -> list[tuple[dict[str, Any], str]]:
    """Return the rules, and what each does. The network's own ones often admit SSH from everywhere, as in `default`."""
    tag = [wanted.cluster]
    common = {
        "network": f"projects/{wanted.project_id}/global/networks/{wanted.network}",
        "direction": "INGRESS",
        "description": f"{_OURS}{wanted.cluster}",
        "targetTags": tag,
    }
    ssh = {"allowed": [{"IPProtocol": "tcp", "ports": ["22"]}], "sourceRanges": sorted(wanted.ssh_from)}
    within = {"allowed": [{"IPProtocol": "all"}], "sourceTags": tag}
    shut = {"denied": [{"IPProtocol": "all"}], "sourceRanges": ["0.0.0.0/0"]}
    name = wanted.cluster
    return [
        # First the one that shuts, so that no machine is ever open in between.
        (
            {"name": f"{name}-shut", "priority": 200, **common, **shut},
            "nothing else comes in to this cluster's machines",
        ),
        ({"name": f"{name}-within", "priority": 100, **common, **within}, "everything within the cluster"),
        ({"name": f"{name}-ssh", "priority": 100, **common, **ssh}, f"SSH from {', '.join(wanted.ssh_from)} only"),
    ]


def _same(there: dict[str, Any], rule: dict[str, Any]) -> bool:
    compared = {key: value for key, value in rule.items() if key not in ("network", "description")}
    there = {**there, "sourceRanges": sorted(there.get("sourceRanges", ()))}
    return not there.get("disabled") and all(there.get(key) == value for key, value in compared.items())


def _patch_of(rule: dict[str, Any]) -> dict[str, Any]:
    """What a change sends: a rule's name and network cannot change."""
    return {**{key: value for key, value in rule.items() if key not in ("name", "network")}, "disabled": False}


def _act(project: Project, what: str, method: str, **arguments: Any) -> Callable[[], None]:
    doing = {"insert": "making", "patch": "changing", "delete": "removing"}[method]

    def act() -> None:
        with google_errors(f"{doing} {what}"):
            firewalls = project.service("compute").firewalls()
            finish(project, getattr(firewalls, method)(project=project.project_id, **arguments))

    return act
