"""Cloud Storage by Google's own client: a bucket's settings, its policy, and uploads in parts."""

import itertools
from typing import Any

import pytest
from google_client import GoogleApis

from scaletrain.storage.client import Part
from scaletrain.storage.gcs import GcsClient

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def store(google: GoogleApis) -> Any:
    return google.store()


@pytest.fixture
def bucket(store: Any) -> Any:
    return store.create_bucket(f"bucket-{next(_NUMBERS)}", location="us-central1")


def test_settings_are_kept(store: Any, bucket: Any) -> None:
    """Uniform access, prevention of public access, versions, lifecycle, soft delete, labels."""
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.versioning_enabled = True
    bucket.add_lifecycle_abort_incomplete_multipart_upload_rule(age=7)
    bucket.soft_delete_policy.retention_duration_seconds = 0
    bucket.labels = {"a": "b"}
    bucket.patch()
    found = store.get_bucket(bucket.name)
    assert (found.location, found.labels, found.versioning_enabled) == ("US-CENTRAL1", {"a": "b"}, True)
    assert found.iam_configuration.uniform_bucket_level_access_enabled
    assert found.iam_configuration.public_access_prevention == "enforced"
    assert [rule["action"]["type"] for rule in found.lifecycle_rules] == ["AbortIncompleteMultipartUpload"]
    assert found.soft_delete_policy.retention_duration_seconds == 0


def test_a_policy_is_kept_with_its_conditions(bucket: Any) -> None:
    """In version 3; who may what is asked for with testPermissions."""
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    condition = {"title": "t", "expression": 'resource.name.startsWith("projects/_/buckets/b/objects/p/")'}
    member = "user:somebody@example.com"
    policy.bindings.append({"role": "roles/storage.objectUser", "members": {member}, "condition": condition})
    bucket.set_iam_policy(policy)
    found = bucket.get_iam_policy(requested_policy_version=3)
    assert [each["condition"] for each in found.bindings if member in each["members"]] == [condition]
    assert bucket.test_iam_permissions(["storage.buckets.get"]) == ["storage.buckets.get"]


def test_objects_are_written_once_where_that_is_asked_for(bucket: Any) -> None:
    """if_generation_match reaches the server that keeps them."""
    from google.api_core.exceptions import PreconditionFailed

    blob = bucket.blob("a/b c")
    blob.upload_from_string(b"one", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string(b"two", if_generation_match=0)
    assert blob.download_as_bytes() == b"one"
    assert [each.name for each in bucket.list_blobs(prefix="a/")] == ["a/b c"]
    blob.delete()
    assert not blob.exists()


def test_an_upload_in_parts_becomes_one_object(google: GoogleApis, bucket: Any) -> None:
    """By the XML API, as the project's own storage client sends it."""
    client = GcsClient(google.store(), google.session(token=google.owner_token()))
    upload = client.begin(f"{bucket.name}/parts", mark="m")
    data = [b"a" * 5 * 2**20, b"b" * 100]
    receipts = [client.put_part(upload, Part(number, each)) for number, each in enumerate(data, start=1)]
    client.finish(upload, receipts=receipts)
    assert bucket.blob("parts").download_as_bytes() == b"".join(data)


def test_a_bucket_goes_when_it_is_empty(store: Any, bucket: Any) -> None:
    """Before that it is refused."""
    from google.api_core.exceptions import Conflict, NotFound

    bucket.blob("a").upload_from_string("x")
    with pytest.raises(Conflict):
        store.bucket(bucket.name).delete()
    bucket.blob("a").delete()
    bucket.delete()
    with pytest.raises(NotFound):
        store.get_bucket(bucket.name)
