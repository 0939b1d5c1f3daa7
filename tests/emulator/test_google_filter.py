"""google_filter: the filters that Ray's launcher and the command line send."""

import pytest

from scaletrain.emulator.google_filter import matches
from scaletrain.emulator.google_request import Refusal

MACHINE = {"name": "m1", "status": "RUNNING", "labels": {"ray-cluster-name": "c", "n": "1"}, "disabled": False}


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("", True),
        ("((labels.ray-cluster-name = c)) AND ((status = STAGING) OR (status = RUNNING))", True),
        ("(labels.ray-cluster-name = c) AND (NOT labels.tpu_cores:*)", True),
        ("(labels.ray-cluster-name = c) AND (NOT labels.n:*)", False),
        ("labels.n=1 status!=TERMINATED", True),
        ('name="m1"', True),
        ("disabled=false", True),
        ("labels.absent=x OR name=m1", True),
        ("labels.absent=x", False),
    ],
)
def test_a_filter_passes_what_it_describes(expression: str, passes: bool) -> None:
    """Equality, presence, NOT, AND (also unsaid), OR, parentheses."""
    assert matches(expression, MACHINE) is passes


@pytest.mark.parametrize("expression", ["(name = m1", "name", "name = m1)"])
def test_what_is_no_filter_is_refused(expression: str) -> None:
    """As Compute Engine does, with 400."""
    with pytest.raises(Refusal) as raised:
        matches(expression, MACHINE)
    assert raised.value.status == 400
