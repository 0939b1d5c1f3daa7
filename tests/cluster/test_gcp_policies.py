"""gcp_policies: rights are added and taken without touching those of others, and conditions are read as Google does."""

from typing import Any

import pytest

from scaletrain.cluster.gcp_plan import Wanted
from scaletrain.cluster.gcp_policies import (
    Right,
    bucket_rights,
    gives_just,
    holds,
    project_rights,
    with_rights,
    without_members,
)
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_condition import holds as evaluate

WANTED = Wanted("my-c", "p", "42", "r", "z", "b", "root", "ubuntu", (), "default", "s", lambda: "")
INSTANCE = "compute.googleapis.com/Instance"
OBJECT, BUCKET = "storage.googleapis.com/Object", "storage.googleapis.com/Bucket"
MINE = Right("roles/a", "serviceAccount:me", "t", 'resource.name.startsWith("x")')
OTHERS: list[dict[str, Any]] = [
    {"role": "roles/a", "members": ["user:you"]},
    {"role": "roles/b", "members": ["serviceAccount:me"]},
]


def test_the_heads_condition_admits_workers_of_its_own_cluster_alone() -> None:
    """Not the head itself, not a cluster whose name begins alike, not another zone."""
    expression = project_rights(WANTED)[-1].expression

    def allows(name: str) -> bool | None:
        return holds(expression, resource=name, kind=INSTANCE)

    assert allows("projects/p/zones/z/instances/ray-my-c-worker-1-compute") is True
    assert allows("projects/p/zones/z/disks/ray-my-c-worker-1-compute") is True
    for other in ("z/instances/ray-my-c-head-1", "z/instances/ray-my-c-2-worker-1", "y/instances/ray-my-c-worker-1"):
        assert allows(f"projects/p/zones/{other}") is False


def test_the_head_reads_secrets_of_scaletrain_alone() -> None:
    """Those that jobs name; a project has others."""
    (secrets,) = (right for right in project_rights(WANTED) if right.role == "roles/secretmanager.secretAccessor")
    assert holds(secrets.expression, resource="projects/42/secrets/scaletrain-hf/versions/1", kind="") is True
    assert holds(secrets.expression, resource="projects/42/secrets/database/versions/1", kind="") is False


def test_objects_beside_the_storage_root_are_out_of_reach() -> None:
    """A listing is asked of the bucket, and goes."""
    rights = {right.role: right.expression for right in bucket_rights(WANTED)}
    write = rights["roles/storage.objectUser"]
    assert holds(write, resource="projects/_/buckets/b/objects/root/runs/x", kind=OBJECT) is True
    assert holds(write, resource="projects/_/buckets/b/objects/root2/x", kind=OBJECT) is False
    assert holds(write, resource="projects/_/buckets/b/objects/raw/x", kind=OBJECT) is False
    assert holds(write, resource="projects/_/buckets/b", kind=BUCKET) is True
    assert (
        holds(rights["roles/storage.objectViewer"], resource="projects/_/buckets/b/objects/raw/x", kind=OBJECT) is True
    )


@pytest.mark.parametrize("expression", ['request.time < timestamp("2020-01-01T00:00:00Z")', "a && b"])
def test_a_condition_of_another_form_is_unknown(expression: str) -> None:
    """Neither a promise nor a problem."""
    assert holds(expression, resource="x", kind=OBJECT) is None


def test_rights_are_given_beside_what_is_there() -> None:
    """Others with the same role stay, and other roles of the same account."""
    policy = with_rights({"etag": "e", "bindings": OTHERS}, [MINE])
    assert policy["bindings"] == [*OTHERS, MINE.binding()]
    assert (policy["version"], policy["etag"], gives_just(policy, [MINE])) == (3, "e", True)


def test_a_right_without_its_condition_is_replaced() -> None:
    """It would be one to everything."""
    wide = {"bindings": [{"role": MINE.role, "members": [MINE.member, "user:you"]}]}
    assert not gives_just(wide, [MINE])
    mended = with_rights(wide, [MINE])
    assert gives_just(mended, [MINE]) and {"role": MINE.role, "members": ["user:you"]} in mended["bindings"]


def test_rights_are_taken_from_the_named_alone() -> None:
    """A binding that is left without members goes."""
    assert without_members({"bindings": OTHERS}, {"serviceAccount:me"})["bindings"] == [OTHERS[0]]


def test_conditions_are_read_as_they_are_evaluated() -> None:
    """`check` and the emulated Google Cloud agree on every condition that init writes."""
    own, other = "projects/p/zones/z/instances/ray-my-c-worker-1", "projects/p/zones/z/instances/web"
    subjects = [(own, INSTANCE), (other, INSTANCE), ("projects/42/secrets/scaletrain-hf/versions/1", "")]
    subjects += [(f"projects/_/buckets/b/objects/{key}", OBJECT) for key in ("root/x", "raw/x", "x")]
    subjects += [("projects/_/buckets/b", BUCKET)]
    for right in [*project_rights(WANTED), *bucket_rights(WANTED)]:
        for name, kind in subjects if right.expression else ():
            found = holds(right.expression, resource=name, kind=kind)
            assert found is evaluate(right.expression, Subject(name, kind)), (right, name)
