"""The requests of Amazon S3 and of what speaks like it, through boto3's client.

obstore moves bytes as fast, but a process that was forked hangs in it, it tells failures as text alone, and it knows no
names like `a//b`. boto3's transfer manager is slower than our threads over its client; with the CRT it is as fast, but
repeats requests by rules of its own.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scaletrain.storage.client import (
    ABSENT,
    CONNECT_TIMEOUT_S,
    MARK,
    MAX_CONNECTIONS,
    MIB,
    READ_TIMEOUT_S,
    Details,
    Page,
    Part,
    Piece,
    Upload,
    piece_of,
)
from scaletrain.storage.errors import ReplacedError, is_transient, service_code

OPTIONS = frozenset({"anon", "endpoint_url", "key", "profile", "secret", "token"})  # by their names in s3fs

_MISSING = {"404", "NoSuchKey"}


def connect(options: Mapping[str, Any]) -> "S3Client":
    """Make a client that sends each request once, with the credentials that boto3 finds where no option gives them."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session(
        aws_access_key_id=options.get("key"),
        aws_secret_access_key=options.get("secret"),
        aws_session_token=options.get("token"),
        profile_name=options.get("profile"),
    )
    config = Config(
        retries={"total_max_attempts": 1},
        max_pool_connections=MAX_CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        # The body has its checksum, and TLS: a SHA-256 of it would cost more than all the rest.
        s3={"payload_signing_enabled": False},
        **({"signature_version": UNSIGNED} if options.get("anon") else {}),
    )
    return S3Client(session.client("s3", endpoint_url=options.get("endpoint_url"), config=config))


@dataclass(frozen=True)
class S3Client:
    """What boto3's client is asked; see `Client`."""

    s3: Any
    largest_put_bytes: int = 16 * MIB

    def head(self, name: str) -> Details | None:
        """HeadObject."""
        place = _place(name)
        if not place["Key"]:
            return None
        try:
            with _missing(name):
                answer = self.s3.head_object(**place)
        except FileNotFoundError:
            return None
        mark = answer.get("Metadata", {}).get(MARK, "")
        etag = answer.get("ETag", "")  # an MD5, of the bytes or of their parts'; under a KMS key no two are the same
        return Details(name, int(answer["ContentLength"]), etag, mark, checksum=etag)

    def page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        """ListObjectsV2."""
        bucket, _, key = folder.partition("/")
        options = {} if deep else {"Delimiter": "/"}
        if after is not None:
            options["ContinuationToken"] = after
        prefix = f"{key}/" if key else ""
        answer = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=limit, **options)
        objects = tuple(
            Details(f"{bucket}/{each['Key']}", int(each["Size"]), each.get("ETag", ""))
            for each in answer.get("Contents", ())
        )
        folders = tuple(f"{bucket}/{each['Prefix']}" for each in answer.get("CommonPrefixes", ()))
        return Page(objects, folders, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None)

    def get(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """GetObject with a Range, and with If-Match where a version is given."""
        options = {"IfMatch": version} if version else {}
        try:
            with _missing(name):
                answer = self.s3.get_object(**_place(name), Range=f"bytes={start}-{stop - 1}", **options)
        except Exception as error:  # every other error is raised again
            if service_code(error) == "InvalidRange":  # begins at the end of the object, or behind it
                return Piece(b"", 0, "")
            if service_code(error) == "PreconditionFailed":
                raise ReplacedError(name) from error
            raise
        with answer["Body"] as body:
            return piece_of(body.read(), answer.get("ContentRange"), answer.get("ETag", ""))

    def put(self, name: str, data: bytes, *, mark: str, over: str | None) -> None:
        """PutObject, with If-None-Match or If-Match where it must not replace another."""
        options: dict[str, Any] = {}
        if over is not None:
            options = {"IfNoneMatch": "*"} if over == ABSENT else {"IfMatch": over}
        if mark:
            options["Metadata"] = {MARK: mark}
        try:
            self.s3.put_object(**_place(name), Body=data, **options)
        except Exception as error:  # every other error is raised again
            if service_code(error) in {"PreconditionFailed", *_MISSING}:
                raise FileExistsError(errno.EEXIST, "there is another object", name) from error
            raise

    def delete(self, names: Sequence[str]) -> None:
        """DeleteObjects."""
        from botocore.exceptions import ClientError

        keys = [{"Key": _place(name)["Key"]} for name in names]
        answer = self.s3.delete_objects(Bucket=_place(names[0])["Bucket"], Delete={"Objects": keys, "Quiet": True})
        if failures := answer.get("Errors"):
            raise ClientError({"Error": failures[0]}, "DeleteObjects")

    def begin(self, name: str, *, mark: str) -> Upload:
        """CreateMultipartUpload."""
        answer = self.s3.create_multipart_upload(**_place(name), Metadata={MARK: mark})
        return Upload(name, str(answer["UploadId"]), mark)

    def put_part(self, upload: Upload, part: Part) -> str:
        """UploadPart; the receipt is the part's ETag."""
        place = {**_place(upload.name), "UploadId": upload.id}
        return str(self.s3.upload_part(**place, PartNumber=part.number, Body=part.data)["ETag"])

    def finish(self, upload: Upload, *, receipts: Sequence[str]) -> None:
        """CompleteMultipartUpload."""
        parts = [{"PartNumber": number, "ETag": receipt} for number, receipt in enumerate(receipts, start=1)]
        place = {**_place(upload.name), "UploadId": upload.id}
        try:
            self.s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        except Exception as error:  # raised again, unless an earlier request has gone through
            if service_code(error) != "NoSuchUpload" and not is_transient(error):
                raise
            found = self.head(upload.name)
            if found is None or found.mark != upload.mark:
                raise

    def abort(self, upload: Upload) -> None:
        """AbortMultipartUpload."""
        try:
            self.s3.abort_multipart_upload(**_place(upload.name), UploadId=upload.id)
        except Exception as error:  # every other error is raised again
            if service_code(error) != "NoSuchUpload":
                raise


def _place(name: str) -> dict[str, str]:
    bucket, _, key = name.partition("/")
    return {"Bucket": bucket, "Key": key}


@contextmanager
def _missing(name: str) -> Iterator[None]:
    """Raise a FileNotFoundError where there is no such object; a bucket that is missing has a code of its own."""
    try:
        yield
    except Exception as error:  # every other error is raised again
        if service_code(error) in _MISSING:
            raise FileNotFoundError(errno.ENOENT, "no such object", name) from error
        raise
