"""price_table: each price has its source and day, the user's own comes first, and what is not known is None."""

import json
import logging
from datetime import date
from pathlib import Path

import pytest
import yaml

from scaletrain.errors import ConfigError
from scaletrain.machine_types import cloud_of, machine_type, machine_types
from scaletrain.price_table import (
    PriceList,
    PriceTable,
    dump_price_table,
    load_price_table,
    parse_price_table,
    warn_if_old,
)

CLUSTERS = Path(__file__).parents[1] / "cluster"


def test_the_package_s_table_says_where_each_price_is_from() -> None:
    """With its day; every machine type in it is known, in a region of its cloud, and spot is cheaper."""
    table = load_price_table()
    for each in table.lists:
        assert each.source and each.as_of < date(2026, 12, 1)
        for region, row in each.usd_per_hour.items():
            for name, price in row.items():
                known = machine_type(name)
                assert known is not None and known.cloud == cloud_of(region)
                on_demand = table.usd_per_hour(name, "on-demand", region=region)
                assert 0 < price <= (on_demand or 1e6)
    assert set(table.storage) == {"aws", "gcp"}


@pytest.mark.parametrize("file", ["aws.yaml", "gcp.yaml"])
def test_the_shipped_clusters_have_prices(file: str) -> None:
    """In both markets: a first cost is known without asking anybody."""
    tree = yaml.safe_load((CLUSTERS / file).read_text())
    configs = [each["node_config"] for each in tree["available_node_types"].values()]
    names = {each.get("InstanceType") or each.get("machineType") for each in configs}
    table = load_price_table()
    for name in names - {"m7i.xlarge"}:  # a head, which is not on spot
        assert table.usd_per_hour(name, "on-demand") and table.usd_per_hour(name, "spot"), name


def test_machine_types_have_what_their_names_promise() -> None:
    """One row each; GPUs have memory, and machines without them none."""
    names = [each.name for each in machine_types()]
    assert len(set(names)) == len(names)
    for each in machine_types():
        assert (each.gpus > 0) == (each.gpu is not None) == (each.gpu_memory_bytes > 0)
        assert each.vcpus > 0 and each.memory_bytes >= 2**32 and each.network_bytes_per_s > 0
    large, small = machine_type("p4de.24xlarge"), machine_type("p4d.24xlarge")
    assert large is not None and small is not None
    assert (large.gpus, large.gpu, large.gpu_memory_bytes) == (8, "A100", 2 * small.gpu_memory_bytes)
    assert machine_type("none") is None


def make_table(**usd_per_hour: dict[str, float]) -> PriceTable:
    regions = {name.replace("_", "-"): row for name, row in usd_per_hour.items()}
    return PriceTable([PriceList("mine", date(2026, 5, 1), "on-demand", regions)])


def test_one_s_own_price_comes_first_and_the_rest_stays() -> None:
    """A contract's price for one type does not hide the others'."""
    table = make_table(us_east_1={"p5.48xlarge": 40.5}).over(load_price_table())
    assert table.usd_per_hour("p5.48xlarge", "on-demand", region="us-east-1") == 40.5
    assert table.usd_per_hour("p5.48xlarge", "on-demand", region="us-west-2") == 55.04
    assert table.usd_per_hour("g6.xlarge", "spot", region="us-east-1") == 0.41285


def test_what_no_list_tells_is_unknown() -> None:
    """Another region's price is another price, and no spot price is never the on-demand one."""
    table = make_table(us_east_1={"a": 1.0}, eu_west_1={"b": 2.0})
    assert table.usd_per_hour("a", "on-demand", region="eu-west-1") is None
    assert table.usd_per_hour("a", "spot", region="us-east-1") is None
    assert [table.usd_per_hour(name, "on-demand") for name in ("a", "b", "c")] == [1.0, 2.0, None]


def test_a_star_is_every_region() -> None:
    """For machines of one's own, which are in none."""
    table = PriceTable([PriceList("mine", date(2026, 5, 1), "spot", {"*": {"server": 2.0}})])
    assert table.usd_per_hour("server", "spot", region="cellar") == table.usd_per_hour("server", "spot") == 2.0


def test_a_table_is_written_and_read_back_equal() -> None:
    """What `prices refresh` writes is what budget.prices reads."""
    table = load_price_table()
    assert parse_price_table(dump_price_table(table), source="x") == table


def test_everything_wrong_with_a_table_is_said_at_once(tmp_path: Path) -> None:
    """A misspelt field, a price that is none, a day that is none, an unknown market."""
    path = tmp_path / "prices.json"
    wrong = {"source": "", "as_of": "May", "market": "cheap", "usd_per_hour": {"r": {"m": "1", "n": 0}}, "more": 1}
    path.write_text(json.dumps({"lists": [wrong], "storage": [{"cloud": "azure"}]}))
    with pytest.raises(ConfigError) as failure:
        load_price_table(str(path))
    for part in ("source:", "as_of: got 'May'", "market: got 'cheap'", "r.m: got '1'", "r.n: got 0", "more:", "azure"):
        assert any(part in problem for problem in failure.value.problems), part
    path.write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        load_price_table(str(path))
    with pytest.raises(ConfigError, match="it should be a price table"):
        load_price_table(str(tmp_path / "none.json"))


@pytest.mark.parametrize(("days", "said"), [(60, 0), (61, 1)])
def test_prices_older_than_sixty_days_are_said_so(days: int, said: int, caplog: pytest.LogCaptureFixture) -> None:
    """In one line, with their source and the remedy."""
    caplog.set_level(logging.WARNING)
    warn_if_old(make_table(us_east_1={"a": 1.0}), date.fromordinal(date(2026, 5, 1).toordinal() + days))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == said and all(
        "61 days old (of 2026-05-01, mine)" in line and "prices refresh" in line for line in lines
    )
