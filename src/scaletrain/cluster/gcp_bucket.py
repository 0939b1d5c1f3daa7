"""The cluster's bucket on Google Cloud: versioned, private, and tidied only of what nobody can see any more."""

from typing import Any

from scaletrain.cluster.gcp_account import LABEL, Project, google_errors, patiently
from scaletrain.cluster.gcp_plan import Wanted
from scaletrain.cluster.gcp_policies import bucket_rights, gives_just, rights_of, with_rights, without_members
from scaletrain.cluster.plan import Step
from scaletrain.errors import ConfigError

# Objects that are current are never touched: checkpoints and data are pruned by scaletrain alone.
RULES: tuple[dict[str, Any], ...] = (
    {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
    {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 14, "isLive": False}},
)
_SETTINGS = ["uniform access", "no public access", "versioning", "lifecycle"]


def bucket_steps(project: Project, wanted: Wanted) -> list[Step]:
    """Compare the bucket, and who may use it, with what it should be."""
    name = f"bucket {wanted.bucket}"
    rights = f"rights on {name}"
    below = f"head and workers: below {wanted.prefix}/, and reading raw/"
    with google_errors(f"looking at {name}"):
        bucket = find_bucket(project, wanted.bucket)
        if bucket is None:
            make = Step(name, "make", "versioned, private", lambda: _make(project, wanted))
            return [make, Step(rights, "make", below, lambda: _give_rights(project, wanted))]
        if location_problem := away_from(bucket, project.region):
            raise ConfigError(
                f"{name} is in {location_problem} and the cluster in {project.region}: every byte would be slow and "
                f"cost money; give another --bucket, or --region {location_problem}"
            )
        missing = _missing_settings(bucket)
        given = gives_just(read_policy(bucket), bucket_rights(wanted))
    steps = [Step(name, "")]
    if missing:
        steps = [Step(name, "change", f"set {', '.join(missing)}", lambda: _configure(bucket, missing))]
    if given:
        return [*steps, Step(rights, "")]
    return [*steps, Step(rights, "change", below, lambda: _give_rights(project, wanted))]


def bucket_removal_steps(project: Project, wanted: Wanted, *, with_objects: bool) -> list[Step]:
    """Say what becomes of the bucket: removed where it is ours and empty, or where its contents may go too."""
    name = f"bucket {wanted.bucket}"
    members = {f"serviceAccount:{account}" for account in (wanted.head_account, wanted.worker_account)}
    with google_errors(f"looking at {name}"):
        bucket = find_bucket(project, wanted.bucket)
        if bucket is None:
            return []
        is_ours = (bucket.labels or {}).get(LABEL) == wanted.cluster
        empty = not any(True for _ in project.storage().list_blobs(wanted.bucket, versions=True, max_results=1))
        has_rights = bool(rights_of(read_policy(bucket), members))

    def take_rights() -> None:
        with google_errors(f"taking the rights on {name}"):
            _write_policy(bucket, without_members(read_policy(bucket), members))

    if is_ours and (empty or with_objects):
        detail = "" if empty else "WITH EVERYTHING IN IT: data, checkpoints, models"
        return [Step(name, "remove", detail, lambda: _remove(project, wanted.bucket))]
    steps = [Step(f"rights on {name}", "remove", "", take_rights)] if has_rights else []
    why = "not empty: --destroy-bucket removes it with everything in it, for good"
    if not is_ours:
        why = f"not made by scaletrain for this cluster (no label {LABEL}={wanted.cluster})"
    return [*steps, Step(name, "keep", why)]


def find_bucket(project: Project, name: str) -> Any | None:
    """Return a bucket with what is set of it, or None where no such bucket exists."""
    from google.api_core.exceptions import Forbidden

    try:
        return project.storage().lookup_bucket(name)
    except Forbidden as error:
        raise ConfigError(
            f"bucket {name} exists, but you may not use it (perhaps it is another project's); give another name with "
            "--bucket"
        ) from error


def away_from(bucket: Any, region: str) -> str | None:
    """Return where a bucket is if it does not lie in a region, in lower case; a dual-region counts if it has it."""
    location = str(bucket.location).lower()
    parts = [each.lower() for each in bucket.data_locations or ()]
    return None if region in (location, *parts) else location


def read_policy(bucket: Any) -> dict[str, Any]:
    """Return who may do what with a bucket, with its conditions, in the form of every policy of Google's."""
    policy = bucket.get_iam_policy(requested_policy_version=3)
    bindings = [{**each, "members": sorted(each["members"])} for each in policy.bindings]
    return {"version": policy.version, "etag": policy.etag, "bindings": bindings}


def _write_policy(bucket: Any, policy: dict[str, Any]) -> None:
    from google.api_core.iam import Policy

    written = Policy(etag=policy["etag"], version=3)
    written.bindings = policy["bindings"]
    bucket.set_iam_policy(written)


def _make(project: Project, wanted: Wanted) -> None:
    bucket = project.storage().bucket(wanted.bucket)
    bucket.labels = {LABEL: wanted.cluster}
    # Versions are kept for 14 days already; soft delete would charge for each of them for a week more.
    bucket.soft_delete_policy.retention_duration_seconds = 0
    _set(bucket, _SETTINGS)
    with google_errors(f"making bucket {wanted.bucket}"):
        bucket.create(location=project.region)


def _configure(bucket: Any, settings: list[str]) -> None:
    with google_errors(f"setting up bucket {bucket.name}"):
        _set(bucket, settings)
        bucket.patch()


def _set(bucket: Any, settings: list[str]) -> None:
    if "uniform access" in settings:
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    if "no public access" in settings:
        bucket.iam_configuration.public_access_prevention = "enforced"
    if "versioning" in settings:
        bucket.versioning_enabled = True
    if "lifecycle" in settings:
        there = [dict(rule) for rule in bucket.lifecycle_rules]
        bucket.lifecycle_rules = [*there, *(rule for rule in RULES if rule not in there)]


def _missing_settings(bucket: Any) -> list[str]:
    there = [dict(rule) for rule in bucket.lifecycle_rules]
    is_set = {
        "uniform access": bool(bucket.iam_configuration.uniform_bucket_level_access_enabled),
        "no public access": bucket.iam_configuration.public_access_prevention == "enforced",
        "versioning": bool(bucket.versioning_enabled),
        "lifecycle": all(rule in there for rule in RULES),
    }
    return [name for name in _SETTINGS if not is_set[name]]


def _give_rights(project: Project, wanted: Wanted) -> None:
    def once() -> None:
        bucket = project.storage().bucket(wanted.bucket)
        _write_policy(bucket, with_rights(read_policy(bucket), bucket_rights(wanted)))

    with google_errors(f"giving the machines their rights on bucket {wanted.bucket}"):
        patiently(once)


def _remove(project: Project, name: str) -> None:
    from google.api_core.exceptions import NotFound

    bucket = project.storage().bucket(name)
    with google_errors(f"removing bucket {name}"):
        for blob in project.storage().list_blobs(name, versions=True):
            try:
                blob.delete(if_generation_match=blob.generation)
            except NotFound:
                continue
        bucket.delete()
