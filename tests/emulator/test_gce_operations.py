"""gce_operations: a change is not done before its time, and only then has it failed."""

from scaletrain.emulator.gce_operations import Operations
from scaletrain.emulator.google_request import Call

TARGET = {"selfLink": "https://www.googleapis.com/compute/v1/projects/p/zones/z/instances/m"}
ERROR = ("ZONE_RESOURCE_POOL_EXHAUSTED", "none left")


def call(path: str, **names: str) -> Call:
    return Call("compute", "GET", path, {}, {}, b"", "", names=names)


def found(operations: Operations, name: str) -> dict[str, object]:
    """Return an operation by the route that clients poll."""
    path = f"/compute/v1/projects/p/zones/z/operations/{name}"
    routes = [(route, route.match("compute", "GET", path)) for route in operations.routes()]
    ((route, names),) = [(route, names) for route, names in routes if names is not None]
    return dict(route.answer(call(path, **names)))


def test_an_operation_that_takes_its_time_shows_no_error_before() -> None:
    """RUNNING for as long as it lasts."""
    operations = Operations("p", 3600)
    begun = operations.begin(call("/x", zone="z"), "insert", TARGET, error=ERROR)
    assert begun["status"] == "RUNNING" and "error" not in begun
    assert found(operations, begun["name"])["status"] == "RUNNING"


def test_an_operation_that_failed_says_so_when_it_is_done() -> None:
    """With the error and its HTTP status; the call that polls succeeds."""
    operations = Operations("p", 0)
    done = found(operations, operations.begin(call("/x", zone="z"), "insert", TARGET, error=ERROR)["name"])
    assert (done["status"], done["httpErrorStatusCode"]) == ("DONE", 503)
    assert done["error"] == {"errors": [{"code": ERROR[0], "message": ERROR[1]}]}


def test_an_operation_without_a_time_is_done_at_once() -> None:
    """So that tests need not poll."""
    begun = Operations("p", 0).begin(call("/x", zone="z"), "insert", TARGET)
    assert begun["status"] == "DONE"
    assert begun["selfLink"].startswith("https://www.googleapis.com/compute/v1/projects/p/zones/z/operations/")
