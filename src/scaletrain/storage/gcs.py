"""The requests of Google Cloud Storage's JSON API, through the session and the credentials of gcsfs.

An upload in parts is resumable, and its parts follow one another: only objects side by side go up in parallel.
"""

import errno
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaletrain.storage.client import MARK, MIB, Details, Page, Part, Piece, Upload, piece_of
from scaletrain.storage.errors import BucketMissingError, IncompleteAnswerError, ReplacedError
from scaletrain.storage.parallel import in_parallel

_CONTENT_TYPE = "application/octet-stream"
_RESUME_INCOMPLETE = 308
_UNKNOWN = "unknown"
_LISTED = "nextPageToken,prefixes,items(name,size,generation)"


@dataclass(frozen=True)
class GcsClient:
    """What gcsfs's session is asked; see `Client`."""

    file_system: Any
    largest_put_bytes: int = 16 * MIB
    parallel_parts: int = 1

    def part_bytes(self, object_size_bytes: int) -> int:
        """16 MiB: each part waits for the answer to the one before, and GCS wants a multiple of 256 KiB."""
        return 16 * MIB

    def head(self, name: str) -> Details | None:
        """objects.get."""
        bucket, key = self._split(name)
        if not key:
            return None
        try:
            answer = self.file_system.call("GET", "b/{}/o/{}", bucket, key, json_out=True)
        except FileNotFoundError:
            return None
        mark = answer.get("metadata", {}).get(MARK, "")
        return Details(name, int(answer["size"]), str(answer["generation"]), mark)

    def page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        """objects.list."""
        bucket, key = self._split(folder)
        options = {"prefix": f"{key}/" if key else None, "delimiter": None if deep else "/", "pageToken": after}
        try:
            answer = self.file_system.call(
                "GET", "b/{}/o", bucket, json_out=True, maxResults=limit, fields=_LISTED, **options
            )
        except FileNotFoundError as error:
            raise BucketMissingError(bucket) from error
        objects = tuple(
            Details(f"{bucket}/{each['name']}", int(each["size"]), str(each["generation"]))
            for each in answer.get("items", ())
        )
        folders = tuple(f"{bucket}/{prefix}" for prefix in answer.get("prefixes", ()))
        return Page(objects, folders, answer.get("nextPageToken") or None)

    def get(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """objects.get with alt=media and a Range, of one generation where a version is given."""
        from gcsfs.retry import HttpError

        url = self.file_system.url(name, generation=version)
        try:
            headers, data = self.file_system.call("GET", url, headers={"Range": f"bytes={start}-{stop - 1}"})
        except FileNotFoundError as error:
            if version:
                raise ReplacedError(name) from error
            raise
        except HttpError as error:
            if error.code == 416:  # begins at the end of the object, or behind it
                return Piece(b"", 0, "")
            raise
        return piece_of(data, headers.get("Content-Range"), headers.get("X-Goog-Generation", ""))

    def put(self, name: str, data: bytes, *, mark: str, only_if_absent: bool) -> None:
        """objects.insert, with ifGenerationMatch=0 where it must not replace another."""
        from fsspec.asyn import sync
        from gcsfs.core import simple_upload

        bucket, key = self._split(name)
        try:
            sync(
                self.file_system.loop,
                simple_upload,
                self.file_system,
                bucket,
                key,
                data,
                metadatain={MARK: mark} if mark else None,
                mode="create" if only_if_absent else "overwrite",
            )
        except FileNotFoundError as error:
            raise BucketMissingError(bucket) from error

    def delete(self, names: Sequence[str]) -> None:
        """objects.delete, one request an object."""
        in_parallel(self._delete_one, names, max_workers=16)

    def begin(self, name: str, *, size_bytes: int, mark: str) -> Upload:
        """Start a resumable upload; its id is the URL that the parts go to."""
        from fsspec.asyn import sync
        from gcsfs.core import initiate_upload

        bucket, key = self._split(name)
        start = functools.partial(initiate_upload, content_type=_CONTENT_TYPE, metadata={MARK: mark})
        try:
            url = sync(self.file_system.loop, start, self.file_system, bucket, key)
        except FileNotFoundError as error:
            raise BucketMissingError(bucket) from error
        return Upload(name, str(url), size_bytes, mark)

    def put_part(self, upload: Upload, part: Part) -> str:
        """Send the next part; the receipt is the size of the object once it is made.

        GCS may keep less than it was sent, and says so; what it has already it ignores, so a part whose answer was
        lost is sent again as it is. An upload that is complete is soon forgotten: `finish` looks for the object then.
        """
        stop = part.start + len(part.data)
        start = part.start
        while start < stop:
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{upload.size_bytes}", "Content-Type": _CONTENT_TYPE}
            data = memoryview(part.data)[start - part.start :]
            try:
                status, answer, body = self._ask("PUT", upload.id, headers=headers, data=data)
            except FileNotFoundError:
                if stop < upload.size_bytes:
                    raise
                return _UNKNOWN
            if status != _RESUME_INCOMPLETE:
                return str(json.loads(body)["size"])
            start = int(answer["Range"].rpartition("-")[2]) + 1 if "Range" in answer else 0
            if start < part.start:
                raise IncompleteAnswerError(start, part.start)
        return _UNKNOWN

    def finish(self, upload: Upload, *, receipts: Sequence[str]) -> None:
        """The last part has made the object: compare its size, and look for it where that part's answer was lost."""
        size = receipts[-1]
        if size == _UNKNOWN:
            found = self.head(upload.name)
            if found is None or found.mark != upload.mark:
                raise FileNotFoundError(f"{upload.name}: the store does not know this upload any more")
            size = str(found.size_bytes)
        if size != str(upload.size_bytes):
            raise OSError(errno.EIO, f"the object has {size} bytes where {upload.size_bytes} were sent; send it again")

    def abort(self, upload: Upload) -> None:
        """Cancel a resumable upload."""
        try:
            self._ask("DELETE", upload.id)
        except FileNotFoundError:
            return

    def _ask(self, method: str, url: str, **details: Any) -> tuple[int, Mapping[str, str], bytes]:
        from fsspec.asyn import sync

        status, headers, _, body = sync(self.file_system.loop, self.file_system._request, method, url, **details)
        return status, headers, body

    def _delete_one(self, name: str) -> None:
        bucket, key = self._split(name)
        try:
            self.file_system.call("DELETE", "b/{}/o/{}", bucket, key)
        except FileNotFoundError:
            return

    def _split(self, name: str) -> tuple[str, str]:
        bucket, key, _ = self.file_system.split_path(name)
        return bucket, key
