"""cli_prices: the table is shown with its sources, and a fresh one is asked of the clouds' own price lists."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner

from scaletrain.cli import app
from scaletrain.errors import ClusterError, ConfigError
from scaletrain.price_refresh import ask_aws, ask_google, wanted_types
from scaletrain.price_table import dump_price_table, load_price_table

TODAY = date(2026, 5, 1)


def call(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prices", *arguments])
    assert result.exit_code == exit_code, result.output
    return result.output if exit_code == 0 else result.stderr


def test_a_machine_s_prices_are_shown_with_their_day_and_source() -> None:
    """In every region that has one; old ones are marked, with the remedy."""
    rows = json.loads(call("--machine", "g6.xlarge", "--json"))
    assert {(row["region"], row["market"]) for row in rows} >= {("us-east-1", "spot"), ("us-west-2", "on-demand")}
    assert all(row["usd_per_hour"] > 0 and row["as_of"] and row["source"] and row["age_days"] >= 0 for row in rows)
    shown = call("--machine", "g6.xlarge")
    assert "0.8048" in shown and "instances.vantage.sh" in shown and "prices refresh" in shown


def test_without_a_machine_the_whole_table_is_shown() -> None:
    """One region each."""
    rows = json.loads(call("--json"))
    assert {row["machine_type"] for row in rows} == set(load_price_table().machine_types())
    assert len(rows) == len({(row["machine_type"], row["market"]) for row in rows})


def test_what_has_no_price_is_said(tmp_path: Path) -> None:
    """With what to do; a wrong cloud or region likewise."""
    assert "no price is known for p9.huge" in call("--machine", "p9.huge", exit_code=2)
    out = str(tmp_path / "prices.json")
    assert "--cloud=azure: give aws or gcp" in call("refresh", "--cloud", "azure", "--out", out, exit_code=2)
    assert "--region: missing" in call("refresh", "--cloud", "gcp", "--out", out, exit_code=2)


def test_only_types_of_the_cloud_are_asked_for() -> None:
    """Every mistake at once."""
    assert {each.cloud for each in wanted_types("gcp", [])} == {"gcp"}
    with pytest.raises(ConfigError) as failure:
        wanted_types("aws", ["g5.xlarge", "g2-standard-8", "none"])
    assert [problem.split(":")[0] for problem in failure.value.problems] == [
        "--machine g2-standard-8",
        "--machine none",
    ]


def client(service: str) -> Any:
    return boto3.client(service, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


def test_a_fresh_table_of_aws_is_one_that_a_run_can_use(tmp_path: Path) -> None:
    """On demand from its price list, spot from EC2's history, where the dearest zone counts."""
    ec2, pricing = client("ec2"), client("pricing")
    terms = {"OnDemand": {"a": {"priceDimensions": {"b": {"unit": "Hrs", "pricePerUnit": {"USD": "0.81"}}}}}}
    spot = [
        {"InstanceType": "g6.xlarge", "SpotPrice": price, "AvailabilityZone": f"us-east-1{zone}"}
        for price, zone in (("0.30", "a"), ("0.33", "b"))
    ]
    with Stubber(pricing) as prices, Stubber(ec2) as history:
        prices.add_response("get_products", {"PriceList": [json.dumps({"terms": terms})]})
        history.add_response("describe_spot_price_history", {"SpotPriceHistory": spot})
        kinds = wanted_types("aws", ["g6.xlarge"])
        table = ask_aws(kinds, region="us-east-1", ec2=ec2, pricing=pricing, today=TODAY, tell=lambda line: None)
    path = tmp_path / "prices.json"
    path.write_bytes(dump_price_table(table))
    found = load_price_table(str(path))
    assert found.usd_per_hour("g6.xlarge", "on-demand", region="us-east-1") == 0.81
    assert found.usd_per_hour("g6.xlarge", "spot", region="us-east-1") == 0.33
    assert {each.as_of for each in table.lists} == {TODAY}


def test_a_cloud_that_tells_nothing_is_an_error_with_its_likely_cause() -> None:
    """Rather than an empty table."""
    ec2, pricing = client("ec2"), client("pricing")
    with Stubber(pricing) as prices, Stubber(ec2) as history:
        prices.add_client_error("get_products", "AccessDeniedException")
        history.add_client_error("describe_spot_price_history", "UnauthorizedOperation")
        kinds = wanted_types("aws", ["g6.xlarge"])
        with pytest.raises(ClusterError, match=r"no price was to be had in us-east-1.*pricing:GetProducts"):
            ask_aws(kinds, region="us-east-1", ec2=ec2, pricing=pricing, today=TODAY, tell=lambda line: None)


def test_a_fresh_table_of_google_adds_up_the_parts() -> None:
    """From its catalogue, asked over its real client."""
    from googleapiclient.discovery import build
    from googleapiclient.http import HttpMockSequence

    def sku(description: str, nanos: int) -> dict[str, Any]:
        rate = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}
        expression = {"usageUnit": "h", "tieredRates": [rate]}
        name = f"{description} running in Iowa"
        return {
            "description": name,
            "serviceRegions": ["us-central1"],
            "pricingInfo": [{"pricingExpression": expression}],
        }

    parts = [sku("G2 Instance Core", 25_000_000), sku("G2 Instance Ram", 3_000_000), sku("Nvidia L4 GPU", 560_000_000)]
    answers = HttpMockSequence([({"status": "200"}, json.dumps({"skus": parts}))])
    billing = build("cloudbilling", "v1", http=answers, static_discovery=True)
    table = ask_google(wanted_types("gcp", ["g2-standard-8"]), region="us-central1", billing=billing, today=TODAY)
    price = table.usd_per_hour("g2-standard-8", "on-demand", region="us-central1")
    assert price == pytest.approx(8 * 0.025 + 32 * 0.003 + 0.56)
    assert table.usd_per_hour("g2-standard-8", "spot", region="us-central1") is None
