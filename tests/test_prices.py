"""prices: what an hour costs is added up from the cloud's own numbers, and is unknown where one is missing."""

import json
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from scaletrain.prices import (
    Machines,
    google_price_list,
    google_price_per_hour,
    hourly_cost,
    or_from_table,
    price_per_hour,
)

HEAD = Machines("m7i.xlarge", "on-demand", 1, 1, 0.2, workers=False)


def test_at_least_and_at_most_are_added_up() -> None:
    """max_workers bounds the workers, the dearest first; the head is always there."""
    machines = [HEAD, Machines("cheap", "spot", 1, 4, 0.1), Machines("dear", "on-demand", 0, 2, 1.0)]
    cost = hourly_cost(machines, max_workers=4)
    assert cost.at_least == pytest.approx(0.3)
    assert cost.at_most == pytest.approx(0.2 + 0.1 + 1.0 + 1.0 + 0.1)
    assert cost.display() == "0.30 to 2.40 USD, without disks and traffic"


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    """A sum without a part would be a lie; a type that cannot run does not matter."""
    cost = hourly_cost([HEAD, Machines("new", "spot", 0, 1, None), Machines("off", "spot", 0, 0, None)], max_workers=1)
    assert (cost.at_least, cost.at_most, cost.unknown) == (None, None, ("new (spot)",))


def test_what_the_cloud_does_not_tell_is_the_table_s_with_its_day() -> None:
    """The cloud comes first; a price of neither stays unknown."""
    assert or_from_table(0.5, "g6.xlarge", "spot", region="us-east-1") == (0.5, None)
    price, as_of = or_from_table(None, "g6.xlarge", "spot", region="us-east-1")
    assert price == 0.41285 and as_of is not None
    assert or_from_table(None, "none", "spot", region="us-east-1") == (None, None)
    cost = hourly_cost([HEAD, Machines("g6.xlarge", "spot", 1, 1, price, as_of=as_of)], max_workers=1)
    assert cost.display() == (
        "0.61 to 0.61 USD, without disks and traffic; the cloud did not tell, so the dated table did: "
        f"g6.xlarge (spot) of {as_of}"
    )


def price_list(*prices: str) -> dict[str, Any]:
    dimensions = {str(i): {"unit": "Hrs", "pricePerUnit": {"USD": price}} for i, price in enumerate(prices)}
    return {"PriceList": [json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": dimensions}}}})]}


def test_an_on_demand_price_is_read_from_the_price_list() -> None:
    """In the form that AWS documents; the emulator has none."""
    pricing = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(pricing) as stub:
        stub.add_response("get_products", price_list("0.0000000000", "0.8048000000"))
        price = price_per_hour("g6.xlarge", "on-demand", region="us-east-1", zone=None, ec2=None, pricing=pricing)
    assert price == pytest.approx(0.8048)


def test_a_refused_question_is_an_unknown_price() -> None:
    """Prices are never worth ending a check for."""
    pricing = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(pricing) as stub:
        stub.add_client_error("get_products", "AccessDeniedException")
        assert price_per_hour("x", "on-demand", region="us-east-1", zone=None, ec2=None, pricing=pricing) is None


def test_a_spot_price_is_that_of_the_zone(s3_server: str) -> None:
    """EC2 says it; a type that it does not have is unknown."""
    ec2 = boto3.client("ec2", region_name="us-east-1")
    places: dict[str, Any] = {"region": "us-east-1", "zone": "us-east-1a", "ec2": ec2, "pricing": None}
    assert (price_per_hour("m5.large", "spot", **places) or 0) > 0
    assert price_per_hour("none.large", "spot", **places) is None


def sku(description: str, nanos: int, *regions: str) -> dict[str, Any]:
    """An entry of Google's catalogue, in the form that it documents."""
    rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}
    expression = {"usageUnit": "h", "tieredRates": [rate]}
    return {"description": description, "serviceRegions": regions, "pricingInfo": [{"pricingExpression": expression}]}


L4_ON_SPOT = [
    sku("Spot Preemptible G2 Instance Core running in Iowa", 10_000_000, "us-central1"),
    sku("Spot Preemptible G2 Instance Ram running in Iowa", 1_000_000, "us-central1"),
    sku("Nvidia L4 GPU attached to Spot Preemptible VMs running in Iowa", 280_000_000, "us-central1"),
    sku("G2 Instance Core running in Iowa", 25_000_000, "us-central1"),
]
G2: dict[str, Any] = {"vcpus": 8, "memory_gib": 32.0, "gpus": 1, "gpu_type": "nvidia-l4"}


def test_googles_price_is_that_of_cpus_memory_and_gpus() -> None:
    """Each is sold by itself; spot and on demand are not mixed up."""
    assert google_price_per_hour(L4_ON_SPOT, "g2-standard-8", "spot", **G2) == pytest.approx(0.08 + 0.032 + 0.28)
    assert google_price_per_hour(L4_ON_SPOT, "g2-standard-8", "on-demand", **G2) is None


@pytest.mark.parametrize(
    ("machine_type", "gpu_type", "gpu"),
    [
        ("a3-highgpu-1g", "nvidia-h100-80gb", "Nvidia H100 80GB GPU"),
        ("a2-ultragpu-1g", "nvidia-a100-80gb", "Nvidia Tesla A100 80GB GPU"),
    ],
)
def test_large_gpus_are_known_by_their_names_in_googles_catalogue(machine_type: str, gpu_type: str, gpu: str) -> None:
    """As https://cloud.google.com/skus has them; an H100 of another kind has a name that only begins the same."""
    family = machine_type[:2].upper()
    there = [sku(f"{family} Instance {part} running in Iowa", 10_000_000, "us-central1") for part in ("Core", "Ram")]
    there += [sku(f"{gpu} running in Iowa", 900_000_000, "us-central1")]
    there += [sku(f"{gpu.removesuffix('GPU')}Mega GPU running in Iowa", 990_000_000, "us-central1")]
    shape: dict[str, Any] = {"vcpus": 10, "memory_gib": 20.0, "gpus": 1, "gpu_type": gpu_type}
    assert google_price_per_hour(there, machine_type, "on-demand", **shape) == pytest.approx(0.1 + 0.2 + 0.9)


@pytest.mark.parametrize("name", ["N1 Predefined Instance", "N1 Instance"])
def test_an_n1_is_known_by_the_name_that_only_its_family_has(name: str) -> None:
    """As https://cloud.google.com/skus has it; its custom machines are sold by another name, at another price."""
    there = [sku(f"{name} {part} running in Iowa", 10_000_000, "us-central1") for part in ("Core", "Ram")]
    there += [sku("Custom Instance Core running in Iowa", 90_000_000, "us-central1")]
    there += [sku("Nvidia Tesla T4 GPU running in Iowa", 350_000_000, "us-central1")]
    shape: dict[str, Any] = {"vcpus": 8, "memory_gib": 30.0, "gpus": 1, "gpu_type": "nvidia-tesla-t4"}
    found = google_price_per_hour(there, "n1-standard-8", "on-demand", **shape)
    assert found == pytest.approx(0.08 + 0.3 + 0.35)


def test_a_gpu_without_a_price_makes_the_machine_unknown() -> None:
    """Half a price would be worse than none."""
    assert google_price_per_hour(L4_ON_SPOT, "g2-standard-8", "spot", **{**G2, "gpu_type": "nvidia-h100-80gb"}) is None


def test_all_pages_of_googles_catalogue_are_read_and_other_regions_left_out() -> None:
    """It has some ten thousand entries."""
    from googleapiclient.discovery import build
    from googleapiclient.http import HttpMockSequence

    pages = [
        {"skus": [L4_ON_SPOT[0], sku("elsewhere", 1, "europe-west4")], "nextPageToken": "more"},
        {"skus": [L4_ON_SPOT[1]]},
    ]
    answers = HttpMockSequence([({"status": "200"}, json.dumps(page)) for page in pages])
    billing = build("cloudbilling", "v1", http=answers, static_discovery=True)
    assert [each["description"] for each in google_price_list(billing, "us-central1")] == [
        each["description"] for each in L4_ON_SPOT[:2]
    ]
