"""The emulated project's networks: subnets, firewall rules, reserved addresses."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scaletrain.emulator.gce_catalog import URL
from scaletrain.emulator.google_filter import matches
from scaletrain.emulator.google_request import Call, Refusal, Resource, Route, not_found, page

# Subnets of the `default` network: one a region, inside 10.128.0.0/9 as on the real one.
DEFAULT_RANGES = "10.128.0.0/9"
# All machines are on one wire, whose prefix this is.
WIRE = ipaddress.ip_network("10.0.0.0/8")
PUBLIC = ipaddress.ip_network("192.0.2.0/24")
_DEFAULT_RULES: tuple[Resource, ...] = (
    {
        "name": "default-allow-internal",
        "sourceRanges": [DEFAULT_RANGES],
        "allowed": [
            {"IPProtocol": "tcp", "ports": ["0-65535"]},
            {"IPProtocol": "udp", "ports": ["0-65535"]},
            {"IPProtocol": "icmp"},
        ],
    },
    {
        "name": "default-allow-ssh",
        "sourceRanges": ["0.0.0.0/0"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
    },
    {"name": "default-allow-icmp", "sourceRanges": ["0.0.0.0/0"], "allowed": [{"IPProtocol": "icmp"}]},
)
EVERYWHERE = ("0.0.0.0/0",)


class Network:
    """Networks, subnets, rules and addresses by their names; `done` makes the operation that answers a change."""

    def __init__(self, project: str, regions: Sequence[str], done: Callable[..., Resource]) -> None:
        self._project = project
        self._done = done
        self.networks: dict[str, Resource] = {}
        self.subnets: dict[tuple[str, str], Resource] = {}
        self.rules: dict[str, Resource] = {}
        self.addresses: dict[tuple[str, str], Resource] = {}
        self._add_network("default", auto=True)
        first = int(ipaddress.ip_network(DEFAULT_RANGES).network_address)
        for index, region in enumerate(regions):
            cidr = f"{ipaddress.ip_address(first + index * 2**12)}/20"
            self._add_subnet(region, "default", network="default", cidr=cidr)
        for rule in _DEFAULT_RULES:
            self._add_rule({**rule, "network": "global/networks/default", "priority": 65534})

    # --- What machines need of it ------------------------------------------------------------------------------------

    def subnet_of(self, interface: Resource, region: str) -> Resource:
        """Return the subnet of a network interface that an instance asks for."""
        reference = interface.get("subnetwork", "")
        if reference:
            parts = reference.split("/")
            place = parts[parts.index("regions") + 1] if "regions" in parts else region
            found = self.subnets.get((place, parts[-1]))
            if found is None or place != region:
                raise not_found(f"projects/{self._project}/regions/{place}/subnetworks/{parts[-1]}")
            return found
        network = last_part(interface.get("network", "global/networks/default"))
        for (place, _), subnet in self.subnets.items():
            if place == region and last_part(subnet["network"]) == network:
                return subnet
        raise not_found(f"projects/{self._project}/global/networks/{network}")

    def free_address(self, subnet: Resource, taken: Iterable[str]) -> str:
        """Return the first address of a subnet that nobody has; the first two of each are Google's own."""
        used = set(taken)
        hosts = iter(ipaddress.ip_network(subnet["ipCidrRange"]).hosts())
        next(hosts)
        return next(str(each) for each in hosts if str(each) not in used)

    # --- Calls -------------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """What Compute Engine answers about networks."""
        own = "/compute/v1/projects/{project}"
        networks, rules = f"{own}/global/networks", f"{own}/global/firewalls"
        subnets, addresses = f"{own}/regions/{{region}}/subnetworks", f"{own}/regions/{{region}}/addresses"
        return [
            _route("GET", networks, "networks.list", lambda call: _listed(call, "network", self.networks)),
            _route("POST", networks, "networks.create", self._insert_network),
            _route("GET", f"{networks}/{{name}}", "networks.get", lambda call: _found(call, self.networks)),
            _route("DELETE", f"{networks}/{{name}}", "networks.delete", self._delete_network),
            _route("GET", subnets, "subnetworks.list", lambda call: _listed(call, "subnetwork", self._regional(call))),
            _route("POST", subnets, "subnetworks.create", self._insert_subnet),
            _route("GET", f"{subnets}/{{name}}", "subnetworks.get", lambda call: _found(call, self._regional(call))),
            _route("DELETE", f"{subnets}/{{name}}", "subnetworks.delete", self._delete_subnet),
            _route(
                "POST",
                f"{subnets}/{{name}}/setPrivateIpGoogleAccess",
                "subnetworks.setPrivateIpGoogleAccess",
                self._set_private_access,
            ),
            _route("GET", rules, "firewalls.list", lambda call: _listed(call, "firewall", self.rules)),
            _route("POST", rules, "firewalls.create", self._insert_rule),
            _route("GET", f"{rules}/{{name}}", "firewalls.get", lambda call: _found(call, self.rules)),
            _route("PATCH", f"{rules}/{{name}}", "firewalls.update", self._patch_rule),
            _route("DELETE", f"{rules}/{{name}}", "firewalls.delete", self._delete_rule),
            _route("GET", addresses, "addresses.list", lambda call: _listed(call, "address", self._addresses(call))),
            _route("POST", addresses, "addresses.create", self._insert_address),
            _route("GET", f"{addresses}/{{name}}", "addresses.get", lambda call: _found(call, self._addresses(call))),
            _route("DELETE", f"{addresses}/{{name}}", "addresses.delete", self._delete_address),
            _route("GET", f"{own}/aggregated/addresses", "addresses.list", self._all_addresses),
        ]

    def _regional(self, call: Call) -> dict[str, Resource]:
        return {name: each for (region, name), each in self.subnets.items() if region == call.names["region"]}

    def _addresses(self, call: Call) -> dict[str, Resource]:
        return {name: each for (region, name), each in self.addresses.items() if region == call.names["region"]}

    def _all_addresses(self, call: Call) -> Resource:
        scopes: dict[str, Any] = {}
        for (region, _), each in self.addresses.items():
            if matches(call.query.get("filter", ""), each):
                scopes.setdefault(f"regions/{region}", {"addresses": []})["addresses"].append(each)
        return {"kind": "compute#addressAggregatedList", "items": scopes}

    def _add_network(self, name: str, *, auto: bool) -> None:
        self.networks[name] = {
            "kind": "compute#network",
            "name": name,
            "autoCreateSubnetworks": auto,
            "subnetworks": [],
            "selfLink": f"{URL}/{self._project}/global/networks/{name}",
        }

    def _add_subnet(self, region: str, name: str, *, network: str, cidr: str, **more: Any) -> None:
        if not ipaddress.ip_network(cidr).subnet_of(WIRE):  # type: ignore[arg-type]  # both are of IPv4
            raise Refusal(400, "invalid", f"{cidr}: subnets are emulated inside {WIRE} only")
        link = f"{URL}/{self._project}/regions/{region}/subnetworks/{name}"
        self.subnets[region, name] = {
            "kind": "compute#subnetwork",
            "privateIpGoogleAccess": False,
            **more,
            "name": name,
            "network": self.networks[network]["selfLink"],
            "ipCidrRange": cidr,
            "region": f"{URL}/{self._project}/regions/{region}",
            "selfLink": link,
        }
        self.networks[network]["subnetworks"].append(link)

    def _add_rule(self, body: Resource) -> None:
        network = last_part(body.get("network", "global/networks/default"))
        if network not in self.networks:
            raise not_found(f"projects/{self._project}/global/networks/{network}")
        if ("allowed" in body) == ("denied" in body):
            raise Refusal(400, "invalid", "Exactly one of allowed and denied has to be specified.")
        rule = {"kind": "compute#firewall", "direction": "INGRESS", "priority": 1000, "disabled": False, **body}
        if rule["direction"] == "INGRESS" and not any(key.startswith("source") for key in body):
            rule["sourceRanges"] = [*EVERYWHERE]
        rule["network"] = self.networks[network]["selfLink"]
        rule["selfLink"] = f"{URL}/{self._project}/global/firewalls/{rule['name']}"
        self.rules[rule["name"]] = rule

    def _insert_network(self, call: Call) -> Resource:
        if _new(call, self.networks).get("autoCreateSubnetworks"):
            raise Refusal(400, "invalid", "of networks that make their subnets, only `default` is emulated")
        self._add_network(call.body["name"], auto=False)
        return self._done(call, "insert", self.networks[call.body["name"]])

    def _delete_network(self, call: Call) -> Resource:
        network = _found(call, self.networks)
        for each in (*self.subnets.values(), *self.rules.values()):
            if each["network"] == network["selfLink"]:
                raise in_use(network, each["selfLink"])
        return self._done(call, "delete", self.networks.pop(network["name"]))

    def _insert_subnet(self, call: Call) -> Resource:
        body = _new(call, self._regional(call))
        network = last_part(body["network"])
        if network not in self.networks:
            raise not_found(f"projects/{self._project}/global/networks/{network}")
        more = {key: value for key, value in body.items() if key in ("privateIpGoogleAccess", "description")}
        self._add_subnet(call.names["region"], body["name"], network=network, cidr=body["ipCidrRange"], **more)
        return self._done(call, "insert", self.subnets[call.names["region"], body["name"]])

    def _delete_subnet(self, call: Call) -> Resource:
        subnet = _found(call, self._regional(call))
        self.networks[last_part(subnet["network"])]["subnetworks"].remove(subnet["selfLink"])
        return self._done(call, "delete", self.subnets.pop((call.names["region"], subnet["name"])))

    def _set_private_access(self, call: Call) -> Resource:
        subnet = _found(call, self._regional(call))
        subnet["privateIpGoogleAccess"] = bool(call.body["privateIpGoogleAccess"])
        return self._done(call, "setPrivateIpGoogleAccess", subnet)

    def _insert_rule(self, call: Call) -> Resource:
        self._add_rule(_new(call, self.rules))
        return self._done(call, "insert", self.rules[call.body["name"]])

    def _patch_rule(self, call: Call) -> Resource:
        old = _found(call, self.rules)
        self._add_rule({**old, **call.body, "name": old["name"]})
        return self._done(call, "patch", self.rules[old["name"]])

    def _delete_rule(self, call: Call) -> Resource:
        return self._done(call, "delete", self.rules.pop(_found(call, self.rules)["name"]))

    def _insert_address(self, call: Call) -> Resource:
        region, body = call.names["region"], _new(call, self._addresses(call))
        taken = {each["address"] for each in self.addresses.values()}
        self.addresses[region, body["name"]] = {
            "kind": "compute#address",
            "status": "RESERVED",
            "addressType": "EXTERNAL",
            "address": next(str(each) for each in reversed([*PUBLIC.hosts()]) if str(each) not in taken),
            **body,
            "region": f"{URL}/{self._project}/regions/{region}",
            "selfLink": f"{URL}/{self._project}/regions/{region}/addresses/{body['name']}",
        }
        return self._done(call, "insert", self.addresses[region, body["name"]])

    def _delete_address(self, call: Call) -> Resource:
        name = _found(call, self._addresses(call))["name"]
        return self._done(call, "delete", self.addresses.pop((call.names["region"], name)))


def _route(method: str, path: str, permission: str, answer: Callable[[Call], Resource]) -> Route:
    return Route("compute", method, path, f"compute.{permission}", answer)


def _listed(call: Call, kind: str, found: dict[str, Resource]) -> Resource:
    wanted = [each for each in found.values() if matches(call.query.get("filter", ""), each)]
    return page(call, f"compute#{kind}List", wanted)


def _found(call: Call, among: dict[str, Resource]) -> Resource:
    if call.names["name"] not in among:
        raise not_found(call.path.removeprefix("/compute/v1/"))
    return among[call.names["name"]]


def _new(call: Call, among: dict[str, Resource]) -> Resource:
    body = call.body
    if body.get("name") in among:
        name = f"{call.path.removeprefix('/compute/v1/')}/{body['name']}"
        raise Refusal(409, "alreadyExists", f"The resource '{name}' already exists")
    return body


def in_use(resource: Resource, user: str) -> Refusal:
    """The refusal to delete what somebody uses."""
    name, other = resource["selfLink"].partition("/v1/")[2], user.partition("/v1/")[2]
    return Refusal(400, "resourceInUseByAnotherResource", f"The resource '{name}' is already being used by '{other}'")


def last_part(reference: str) -> str:
    """Return the name at the end of a reference to a resource."""
    return reference.rpartition("/")[2]
