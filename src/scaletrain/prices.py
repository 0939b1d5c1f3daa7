"""What machines cost an hour, asked of the cloud first; where it is silent the dated table tells, and that is said.

AWS: on-demand prices come from the Price List API (https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html),
spot prices from EC2's own history of the last hour. Google: both from the Cloud Billing Catalog API, by CPUs, memory
and GPUs (https://cloud.google.com/billing/docs/how-to/get-pricing-information-api). Disks, traffic and the bucket are
not in them. What is neither told nor in the table (price_table.py) stays unknown.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from scaletrain.log import get_logger
from scaletrain.price_table import load_price_table

PRICE_LIST_REGION = "us-east-1"  # the Price List API answers there for all regions

_COMPUTE_ENGINE = "services/6F81-5844-456A"  # its name in Google's catalogue
# How the catalogue (https://cloud.google.com/skus) calls the GPUs; others are unknown.
_GPU_NAMES = {
    "nvidia-a100-80gb": "Nvidia Tesla A100 80GB GPU",
    "nvidia-h100-80gb": "Nvidia H100 80GB GPU",
    "nvidia-l4": "Nvidia L4 GPU",
    "nvidia-tesla-a100": "Nvidia Tesla A100 GPU",
    "nvidia-tesla-t4": "Nvidia Tesla T4 GPU",
    "nvidia-tesla-v100": "Nvidia Tesla V100 GPU",
}

_log = get_logger(__name__)


@dataclass(frozen=True)
class Machines:
    """Some machines of one kind: at least and at most how many run; `usd_per_hour` is None where it is unknown.

    `as_of` is the day of a price that is from the table; None for one that the cloud told.
    """

    instance_type: str
    market: Literal["spot", "on-demand"]
    least: int
    most: int
    usd_per_hour: float | None
    workers: bool = True  # False for the head, which max_workers does not count
    as_of: date | None = None


@dataclass(frozen=True)
class HourlyCost:
    """What a cluster costs an hour in US dollars; None where the price of a machine in it is unknown.

    `from_table` names the prices that the cloud did not tell, with their day.
    """

    at_least: float | None
    at_most: float | None
    unknown: tuple[str, ...]
    from_table: tuple[str, ...] = ()

    def display(self) -> str:
        """Return the cost as a user reads it."""
        if self.unknown:
            return f"unknown: no price was to be had for {', '.join(self.unknown)}"
        range_text = f"{self.at_least:.2f} to {self.at_most:.2f} USD, without disks and traffic"
        if not self.from_table:
            return range_text
        return f"{range_text}; the cloud did not tell, so the dated table did: {', '.join(self.from_table)}"


def hourly_cost(machines: Iterable[Machines], *, max_workers: int) -> HourlyCost:
    """Add up what a cluster costs with its fewest and with its dearest allowed machines.

    Those that always run count in both; of the others, no more than `max_workers` at once, the dearest first.
    """
    machines = list(machines)
    needed = [each for each in machines if each.most > 0]
    unknown = tuple(sorted({f"{each.instance_type} ({each.market})" for each in needed if each.usd_per_hour is None}))
    if unknown:
        return HourlyCost(None, None, unknown)
    dated = {f"{each.instance_type} ({each.market}) of {each.as_of}" for each in needed if each.as_of is not None}
    at_least = sum(each.least * (each.usd_per_hour or 0) for each in needed)
    extra = sorted((each.usd_per_hour or 0 for each in needed for _ in range(each.most - each.least)), reverse=True)
    room = max(0, max_workers - sum(each.least for each in needed if each.workers))
    return HourlyCost(at_least, at_least + sum(extra[:room]), (), tuple(sorted(dated)))


def or_from_table(
    asked: float | None, instance_type: str, market: Literal["spot", "on-demand"], *, region: str
) -> tuple[float | None, date | None]:
    """What the cloud told, or else the dated table's price with its day."""
    found = load_price_table().row(instance_type, market, region=region) if asked is None else None
    return (found[0], found[1].as_of) if found is not None else (asked, None)


def price_per_hour(
    instance_type: str, market: Literal["spot", "on-demand"], *, region: str, zone: str | None, ec2: Any, pricing: Any
) -> float | None:
    """Return the price of one machine in US dollars, or None where AWS does not say.

    `ec2` is a client of the region and `pricing` one of PRICE_LIST_REGION. Where the zone is None, the dearest counts.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if market == "spot":
            return _spot_price(ec2, instance_type, zone)
        return _on_demand_price(pricing, instance_type, region)
    except (BotoCoreError, ClientError) as error:
        _log.debug("no price for %s (%s): %s", instance_type, market, error)
        return None


def _spot_price(ec2: Any, instance_type: str, zone: str | None) -> float | None:
    arguments: dict[str, Any] = {"AvailabilityZone": zone} if zone else {}
    answer = ec2.describe_spot_price_history(
        InstanceTypes=[instance_type],
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC),  # the price that holds now
        **arguments,
    )
    prices = [
        float(each["SpotPrice"])
        for each in answer["SpotPriceHistory"]
        if each["InstanceType"] == instance_type and zone in (None, each["AvailabilityZone"])
    ]
    return max(prices, default=None)


def _on_demand_price(pricing: Any, instance_type: str, region: str) -> float | None:
    wanted = {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    answer = pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
    prices = [
        float(dimension["pricePerUnit"]["USD"])
        for text in answer["PriceList"]
        for term in json.loads(text)["terms"].get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == "Hrs" and "USD" in dimension["pricePerUnit"]
    ]
    return max((price for price in prices if price > 0), default=None)


def google_price_list(billing: Any, region: str) -> list[dict[str, Any]]:
    """Return what Compute Engine sells in a region by the hour, from Google's catalogue; `billing` is its client."""
    entries = billing.services().skus()
    request = entries.list(parent=_COMPUTE_ENGINE, pageSize=5000)
    found = []
    while request is not None:
        answer = request.execute(num_retries=1)
        found += [each for each in answer.get("skus", ()) if region in each.get("serviceRegions", ())]
        request = entries.list_next(request, answer)
    return found


def google_price_per_hour(
    prices: Sequence[Mapping[str, Any]],
    machine_type: str,
    market: Literal["spot", "on-demand"],
    *,
    vcpus: int,
    memory_gib: float,
    gpus: int,
    gpu_type: str | None,
) -> float | None:
    """Return the price of one machine in US dollars, or None where the list lacks one of its parts."""
    family = machine_type.partition("-")[0].upper()
    spot = "Spot Preemptible " if market == "spot" else ""
    parts = [(f"{spot}{family} Instance Core", float(vcpus)), (f"{spot}{family} Instance Ram", memory_gib)]
    if gpus:
        name = _GPU_NAMES.get(gpu_type or "")
        attached = " attached to Spot Preemptible VMs" if market == "spot" else ""
        parts.append((f"{name}{attached}", float(gpus)))
    found = [(_unit_price(prices, name), amount) for name, amount in parts]
    if any(price is None for price, _ in found):
        return None
    return sum((price or 0.0) * amount for price, amount in found)


def _unit_price(prices: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the price of one unit of what is called so "running in" some place, the dearest if several."""
    # The catalogue calls N1, and no other family, "N1 Predefined Instance Core".
    called = re.escape(name).replace(r"N1\ Instance", r"N1\ (?:Predefined\ )?Instance")
    pattern = re.compile(rf"{called} running in .*", re.IGNORECASE)
    found = []
    for each in prices:
        if pattern.fullmatch(str(each.get("description", ""))):
            rates = each["pricingInfo"][-1]["pricingExpression"]["tieredRates"]
            price = rates[-1]["unitPrice"]
            found.append(int(price.get("units", 0)) + price.get("nanos", 0) / 1e9)
    return max((price for price in found if price > 0), default=None)
