"""prices: what an hour costs is added up from AWS's own numbers, and is unknown where one is missing."""

import json
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from scaletrain.prices import Machines, hourly_cost, price_per_hour

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
