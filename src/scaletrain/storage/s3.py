"""The requests of Amazon S3 and of what speaks like it, through the client of s3fs."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaletrain.storage.client import MARK, MIB, Details, Page, Part, Piece, Upload, piece_of
from scaletrain.storage.errors import ReplacedError, is_transient, service_code
from scaletrain.storage.s3_http import S3Http

_MAX_PARTS = 10_000


@dataclass(frozen=True)
class S3Client:
    """What s3fs's client is asked, and plain HTTP where it can be; see `Client`."""

    file_system: Any
    http: S3Http
    largest_put_bytes: int = 16 * MIB
    parallel_parts: int = 8

    def part_bytes(self, object_size_bytes: int) -> int:
        """8 MiB, and more only where there would be too many parts."""
        return max(8 * MIB, -(-object_size_bytes // _MAX_PARTS))

    def head(self, name: str) -> Details | None:
        """HeadObject."""
        bucket, key = self._split(name)
        if not key:
            return None
        try:
            answer = self.file_system.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        mark = answer.get("Metadata", {}).get(MARK, "")
        return Details(name, int(answer["ContentLength"]), answer.get("ETag", ""), mark)

    def page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        """ListObjectsV2."""
        bucket, key = self._split(folder)
        options = {} if deep else {"Delimiter": "/"}
        if after is not None:
            options["ContinuationToken"] = after
        prefix = f"{key}/" if key else ""
        answer = self.file_system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=limit, **options)
        objects = tuple(
            Details(f"{bucket}/{each['Key']}", int(each["Size"]), each.get("ETag", ""))
            for each in answer.get("Contents", ())
        )
        folders = tuple(f"{bucket}/{each['Prefix']}" for each in answer.get("CommonPrefixes", ()))
        return Page(objects, folders, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None)

    def get(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """GetObject with a Range, and with If-Match where a version is given."""
        bucket, key = self._split(name)
        try:
            return self._get(bucket, key, f"bytes={start}-{stop - 1}", version)
        except OSError as error:
            if service_code(error) == "InvalidRange":  # begins at the end of the object, or behind it
                return Piece(b"", 0, "")
            if service_code(error) == "PreconditionFailed":
                raise ReplacedError(name) from error
            raise

    def _get(self, bucket: str, key: str, wanted: str, version: str | None) -> Piece:
        from fsspec.asyn import sync

        headers = {"Range": wanted, **({"If-Match": version} if version else {})}
        got = self.http.send("GET", bucket, key, headers=headers)
        if got is not None:
            return piece_of(got.data, got.headers.get("content-range"), got.headers.get("etag", ""))
        options = {"IfMatch": version} if version else {}

        async def get() -> tuple[dict[str, Any], bytes]:
            answer = await self.file_system._call_s3("get_object", Bucket=bucket, Key=key, Range=wanted, **options)
            try:
                return answer, await answer["Body"].read()
            finally:
                answer["Body"].close()

        answer, data = sync(self.file_system.loop, get)
        return piece_of(data, answer.get("ContentRange"), answer.get("ETag", ""))

    def put(self, name: str, data: bytes, *, mark: str, only_if_absent: bool) -> None:
        """PutObject, with If-None-Match where it must not replace another."""
        bucket, key = self._split(name)
        if not mark and not only_if_absent and self.http.send("PUT", bucket, key, body=data) is not None:
            return
        options: dict[str, Any] = {"IfNoneMatch": "*"} if only_if_absent else {}
        if mark:
            options["Metadata"] = {MARK: mark}
        try:
            self.file_system.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **options)
        except OSError as error:
            if service_code(error) == "PreconditionFailed":
                raise FileExistsError(errno.EEXIST, "there is such an object", name) from error
            raise

    def delete(self, names: Sequence[str]) -> None:
        """DeleteObjects."""
        keys = [self._split(name)[1] for name in names]
        bucket = self._split(names[0])[0]
        answer = self.file_system.call_s3(
            "delete_objects", Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for failure in answer.get("Errors", ()):
            from botocore.exceptions import ClientError

            cause = ClientError({"Error": failure}, "DeleteObjects")
            if failure.get("Code") == "AccessDenied":
                raise PermissionError(errno.EACCES, str(failure.get("Message"))) from cause
            raise OSError(errno.EIO, str(failure.get("Message"))) from cause

    def begin(self, name: str, *, size_bytes: int, mark: str) -> Upload:
        """CreateMultipartUpload."""
        bucket, key = self._split(name)
        answer = self.file_system.call_s3("create_multipart_upload", Bucket=bucket, Key=key, Metadata={MARK: mark})
        return Upload(name, str(answer["UploadId"]), size_bytes, mark)

    def put_part(self, upload: Upload, part: Part) -> str:
        """UploadPart; the receipt is the part's ETag."""
        bucket, key = self._split(upload.name)
        query = {"partNumber": str(part.number), "uploadId": upload.id}
        sent = self.http.send("PUT", bucket, key, query=query, body=part.data)
        if sent is not None:
            return sent.headers["etag"]
        answer = self.file_system.call_s3(
            "upload_part", Bucket=bucket, Key=key, UploadId=upload.id, PartNumber=part.number, Body=part.data
        )
        return str(answer["ETag"])

    def finish(self, upload: Upload, *, receipts: Sequence[str]) -> None:
        """CompleteMultipartUpload."""
        bucket, key = self._split(upload.name)
        parts = [{"PartNumber": number, "ETag": receipt} for number, receipt in enumerate(receipts, start=1)]
        try:
            self.file_system.call_s3(
                "complete_multipart_upload",
                Bucket=bucket,
                Key=key,
                UploadId=upload.id,
                MultipartUpload={"Parts": parts},
            )
        except OSError as error:
            if service_code(error) != "NoSuchUpload" and not is_transient(error):
                raise
            found = self.head(upload.name)  # an earlier request may have gone through
            if found is None or found.mark != upload.mark:
                raise

    def abort(self, upload: Upload) -> None:
        """AbortMultipartUpload."""
        bucket, key = self._split(upload.name)
        try:
            self.file_system.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)
        except OSError as error:
            if service_code(error) != "NoSuchUpload":
                raise

    def _split(self, name: str) -> tuple[str, str]:
        bucket, key, _ = self.file_system.split_path(name)
        return bucket, key
