"""this_machine: EC2's and Google's metadata services say what a machine is; elsewhere it is a machine of no cloud."""

from pathlib import Path

import pytest

import metadata_server
from scaletrain import this_machine
from scaletrain.this_machine import Machine, find_this_machine


@pytest.mark.parametrize(
    ("life_cycle", "market"), [("spot", "spot"), ("on-demand", "on-demand"), ("scheduled", "on-demand")]
)
def test_a_machine_of_ec2_knows_its_type_market_and_region(life_cycle: str, market: str) -> None:
    """With version 2's token, as shipped cluster files ask for."""
    server = metadata_server.ec2()
    server.items |= {"instance-type": "g6.xlarge", "instance-life-cycle": life_cycle, "placement/region": "us-west-2"}
    with server.serving() as address:
        found = find_this_machine(ask=True, address=address)
    assert found == Machine("i-0123456789abcdef0", "g6.xlarge", market, "us-west-2")  # type: ignore[arg-type]
    assert found.described == f"g6.xlarge ({market}, us-west-2)"


@pytest.mark.parametrize(("preemptible", "market"), [("TRUE", "spot"), ("FALSE", "on-demand")])
def test_a_machine_of_google_knows_its_type_market_and_region(preemptible: str, market: str) -> None:
    """Which come as the last parts of paths, and the region as the zone without its letter."""
    server = metadata_server.google()
    server.items |= {
        "id": "42",
        "machine-type": "projects/7/machineTypes/g2-standard-8",
        "zone": "projects/7/zones/us-central1-a",
        "scheduling/preemptible": preemptible,
    }
    server.items[""] = "computeMetadata/"
    with server.serving() as address:
        found = find_this_machine(ask=True, address=address)
    assert found == Machine("42", "g2-standard-8", market, "us-central1")  # type: ignore[arg-type]


def test_a_first_answer_that_fails_is_asked_for_again() -> None:
    """A metadata service is busy while its machine starts."""
    server = metadata_server.ec2()
    server.items |= {"instance-type": "m5.large", "instance-life-cycle": "spot", "placement/region": "eu-west-1"}
    server.failures_left = 1
    with server.serving() as address:
        assert find_this_machine(ask=True, address=address).machine_type == "m5.large"


def test_elsewhere_it_is_one_machine_of_no_known_cloud() -> None:
    """Found without a question, and told from others by its boot: two processes here are on one machine."""
    found = find_this_machine(ask=False)
    assert found == find_this_machine(ask=True, address="127.0.0.1:9") == find_this_machine(ask=False)
    assert (found.machine_type, found.market, found.region) == (None, None, None)
    assert found.identity and found.described == "a machine of no known cloud"


@pytest.mark.parametrize(
    ("name", "models", "expected"),
    [
        ("n1-standard-8", ["Tesla T4"], "n1-standard-8+1xT4"),
        ("n1-standard-32", ["Tesla V100-SXM2-16GB"] * 4, "n1-standard-32+4xV100"),
        ("g2-standard-8", ["NVIDIA L4"], "g2-standard-8"),
        ("n2-standard-8", [], "n2-standard-8"),
    ],
)
def test_gpus_attached_to_a_machine_are_part_of_its_name(
    name: str, models: list[str], expected: str, tmp_path: Path
) -> None:
    """Google's N1 does not say which it has; the driver does, in the form of /proc/driver/nvidia/gpus."""
    for number, model in enumerate(models):
        gpu = tmp_path / f"0000:0{number}:00.0"
        gpu.mkdir()
        (gpu / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 39\n")
    assert this_machine._with_attached_gpus(name, folder=tmp_path) == expected
