"""google_condition: the conditions that bindings of roles have."""

import pytest

from scaletrain.emulator.google_condition import Subject, holds
from scaletrain.emulator.google_request import Refusal

NAME = "projects/_/buckets/b/objects/runs/a"
OBJECT = Subject(NAME, "storage.googleapis.com/Object", "storage.googleapis.com", {"objectListPrefix": "runs/"})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('resource.name.startsWith("projects/_/buckets/b/objects/runs/")', True),
        ("resource.name.startsWith('projects/_/buckets/c')", False),
        ('resource.type == "storage.googleapis.com/Object" && !resource.name.endsWith("/b")', True),
        ('resource.name == "x" || (resource.service != "compute.googleapis.com")', True),
        ('api.getAttribute("storage.googleapis.com/objectListPrefix", "").startsWith("runs/")', True),
        ('api.getAttribute("storage.googleapis.com/absent", "none") == "none"', True),
    ],
)
def test_a_condition_holds_where_it_should(expression: str, expected: bool) -> None:
    """On the resource's name, type and service, and the prefix of a list."""
    assert holds(expression, OBJECT) is expected


@pytest.mark.parametrize("expression", ["", "resource.name", "request.time < x", 'resource.name.startsWith("a"'])
def test_what_is_not_emulated_is_refused(expression: str) -> None:
    """Rather than to admit or to deny by mistake."""
    with pytest.raises(Refusal):
        holds(expression, OBJECT)
