"""The cluster's bucket: versioned, private, encrypted, and tidied only of what nobody can see any more."""

from typing import Any

from scaletrain.cluster.aws_account import TAG, Account, aws_errors, error_code, has_tag, tags_of
from scaletrain.cluster.aws_plan import Wanted
from scaletrain.cluster.plan import Step
from scaletrain.errors import ClusterError, ConfigError

_PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
# Objects that are current are never touched: checkpoints and data are pruned by scaletrain alone.
_RULES: tuple[dict[str, Any], ...] = (
    {
        "ID": "scaletrain: uploads that were never finished",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    },
    {
        "ID": "scaletrain: versions that were overwritten or deleted",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 14},
    },
)


def bucket_steps(account: Account, wanted: Wanted) -> list[Step]:
    """Compare the bucket with what it should be."""
    s3 = account.client("s3")
    name = f"bucket {wanted.bucket}"
    with aws_errors(f"looking at {name}"):
        region = bucket_region(s3, wanted.bucket)
        if region is None:
            return [Step(name, "make", "versioned, private, encrypted", lambda: _make(account, wanted))]
        if region != account.region:
            raise ConfigError(
                f"{name} is in {region} and the cluster in {account.region}: every byte would be slow and cost money; "
                f"give another --bucket, or --region {region}"
            )
        missing = _missing_settings(s3, wanted.bucket)
    if not missing:
        return [Step(name, "")]
    return [Step(name, "change", f"set {', '.join(missing)}", lambda: _configure(s3, wanted.bucket, missing))]


def bucket_region(s3: Any, bucket: str) -> str | None:
    """Return the region that a bucket is in, or None where no such bucket exists."""
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except s3.exceptions.ClientError as error:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if error_code(error) in ("404", "NoSuchBucket"):
            return None
        if error_code(error) in ("301", "PermanentRedirect") and "x-amz-bucket-region" in headers:
            return str(headers["x-amz-bucket-region"])
        if error_code(error) == "403":
            raise ConfigError(
                f"bucket {bucket} exists, but you may not use it (perhaps it is another account's); "
                "give another name with --bucket"
            ) from error
        raise
    return str(answer.get("BucketRegion") or s3.meta.region_name)


def bucket_removal_steps(account: Account, wanted: Wanted, *, with_objects: bool) -> list[Step]:
    """Say what becomes of the bucket: removed where it is ours and empty, or where its contents may go too."""
    s3 = account.client("s3")
    name = f"bucket {wanted.bucket}"
    with aws_errors(f"looking at {name}"):
        if bucket_region(s3, wanted.bucket) is None:
            return []
        if not has_tag(_tags(s3, wanted.bucket), wanted.cluster):
            return [Step(name, "keep", f"not made by scaletrain for this cluster (no tag {TAG}={wanted.cluster})")]
        empty = "Versions" not in (found := s3.list_object_versions(Bucket=wanted.bucket, MaxKeys=1)) and (
            "DeleteMarkers" not in found
        )
    if not empty and not with_objects:
        return [Step(name, "keep", "not empty: --destroy-bucket removes it with everything in it, for good")]
    detail = "" if empty else "WITH EVERYTHING IN IT: data, checkpoints, models"
    return [Step(name, "remove", detail, lambda: _remove(account, wanted.bucket))]


def _make(account: Account, wanted: Wanted) -> None:
    s3 = account.client("s3")
    place = {} if account.region == "us-east-1" else {"LocationConstraint": account.region}
    with aws_errors(f"making bucket {wanted.bucket}"):
        s3.create_bucket(Bucket=wanted.bucket, **({"CreateBucketConfiguration": place} if place else {}))
        s3.put_bucket_tagging(Bucket=wanted.bucket, Tagging={"TagSet": tags_of(wanted.cluster)})
    _configure(s3, wanted.bucket, ["versioning", "no public access", "encryption", "lifecycle"])


def _configure(s3: Any, bucket: str, settings: list[str]) -> None:
    with aws_errors(f"setting up bucket {bucket}"):
        if "versioning" in settings:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        if "no public access" in settings:
            s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=_PRIVATE)
        if "encryption" in settings:
            rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
            s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
        if "lifecycle" in settings:
            ours = {rule["ID"] for rule in _RULES}
            others = [rule for rule in _rules(s3, bucket) if rule["ID"] not in ours]
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*others, *_RULES]})


def _missing_settings(s3: Any, bucket: str) -> list[str]:
    missing = []
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        missing.append("versioning")
    blocked = _ask(s3.get_public_access_block, bucket, "NoSuchPublicAccessBlockConfiguration")
    if blocked.get("PublicAccessBlockConfiguration") != _PRIVATE:
        missing.append("no public access")
    if not _ask(s3.get_bucket_encryption, bucket, "ServerSideEncryptionConfigurationNotFoundError"):
        missing.append("encryption")
    there = _rules(s3, bucket)
    if not all(any(_same_rule(rule, each) for each in there) for rule in _RULES):
        missing.append("lifecycle")
    return missing


def _same_rule(wanted: dict[str, Any], there: dict[str, Any]) -> bool:
    return all(there.get(key) == value for key, value in wanted.items() if key != "Filter")


def _rules(s3: Any, bucket: str) -> list[dict[str, Any]]:
    return list(_ask(s3.get_bucket_lifecycle_configuration, bucket, "NoSuchLifecycleConfiguration").get("Rules", ()))


def _tags(s3: Any, bucket: str) -> list[dict[str, str]]:
    return list(_ask(s3.get_bucket_tagging, bucket, "NoSuchTagSet").get("TagSet", ()))


def _ask(question: Any, bucket: str, code_of_nothing: str) -> dict[str, Any]:
    """Return the answer to a question about a bucket, or {} where S3 says that nothing is set."""
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = question(Bucket=bucket)
    except ClientError as error:
        if error_code(error) == code_of_nothing:
            return {}
        raise
    return answer


def _remove(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    with aws_errors(f"removing bucket {bucket}"):
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", ()):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        while objects := _first_versions(s3, bucket):
            refused = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", ())
            if refused:
                told = refused[0]
                raise ClusterError(f"removing bucket {bucket}: {told['Key']} stays: {told['Code']}, {told['Message']}")
        s3.delete_bucket(Bucket=bucket)


def _first_versions(s3: Any, bucket: str) -> list[dict[str, str]]:
    """What a listing from the start has now: the pages of one listing are no account of what deletions leave."""
    page = s3.list_object_versions(Bucket=bucket)
    versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in versions]
