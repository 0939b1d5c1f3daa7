"""Google's XML API for uploads in parts, which fake-gcs-server does not know.

As told in https://cloud.google.com/storage/docs/xml-api/post-object-multipart and the pages beside it.
"""

import base64
import hashlib
import itertools
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote

_SMALLEST_PART_BYTES = 5 * 2**20  # but for the last one
_BOUNDARY = "a-boundary-that-nobody-writes"
_META = "x-goog-meta-"


@dataclass
class Upload:
    """An upload that was begun."""

    path: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


def concerns_parts(target: str) -> bool:
    """Tell whether a request (its path and query) is about an upload in parts."""
    path, _, query = target.partition("?")
    return not path.startswith(("/storage/", "/upload/")) and bool({"uploads", "uploadId"} & {*_query(query)})


class Uploads:
    """All uploads that were begun and not ended, and the store (its URL) that their objects go to."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._uploads: dict[str, Upload] = {}
        self._ids = itertools.count(1)

    def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Do what a request asks (headers in lower case); returns status, headers and body of the answer."""
        path, _, query_text = target.partition("?")
        path, query = unquote(path), _query(query_text)
        if "uploads" in query:
            return self._begin(path, headers)
        name = query["uploadId"][0]
        upload = self._uploads.get(name)
        if upload is None or upload.path != path:
            return _error(404, "NoSuchUpload")
        if method == "PUT":
            upload.parts[int(query["partNumber"][0])] = body
            return 200, {"ETag": _etag(body), "X-Goog-Hash": f"crc32c={_checksum(body)}"}, b""
        if method == "POST":
            return self._finish(name, upload, body.decode())
        del self._uploads[name]
        return 204, {}, b""

    def _begin(self, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        bucket = path.split("/")[1]
        try:
            urllib.request.urlopen(f"{self._upstream}/storage/v1/b/{bucket}", timeout=30).close()
        except urllib.error.HTTPError:
            return _error(404, "NoSuchBucket")
        metadata = {key.removeprefix(_META): text for key, text in headers.items() if key.startswith(_META)}
        name = f"upload-{next(self._ids)}"
        self._uploads[name] = Upload(path, metadata)
        result = "InitiateMultipartUploadResult"
        # Google's own client reads the answer with its namespace.
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        return 200, {}, f'<{result} xmlns="{space}"><UploadId>{name}</UploadId></{result}>'.encode()

    def _finish(self, name: str, upload: Upload, text: str) -> tuple[int, dict[str, str], bytes]:
        text = text.replace("&quot;", '"')
        wanted = [
            (int(re.findall(r"PartNumber>(\d+)<", part)[0]), re.findall("ETag>(.*?)<", part)[0])
            for part in re.findall("<(?:\\w+:)?Part>.*?</(?:\\w+:)?Part>", text)
        ]
        if wanted != sorted(set(wanted)):
            return _error(400, "InvalidPartOrder")
        parts = [upload.parts.get(number, b"") for number, _ in wanted]
        if not parts or any(_etag(data) != etag for data, (_, etag) in zip(parts, wanted, strict=True)):
            return _error(400, "InvalidPart")
        if any(len(data) < _SMALLEST_PART_BYTES for data in parts[:-1]):
            return _error(400, "EntityTooSmall")
        self._insert(upload, b"".join(parts))
        del self._uploads[name]
        return 200, {}, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"

    def _insert(self, upload: Upload, data: bytes) -> None:
        """Make the object in one request of the JSON API."""
        _, bucket, key = upload.path.split("/", 2)
        details = json.dumps({"name": key, "metadata": upload.metadata}).encode()
        start = f"--{_BOUNDARY}\r\nContent-Type: "
        body = [
            f"{start}application/json\r\n\r\n".encode() + details,
            f"\r\n{start}application/octet-stream\r\n\r\n".encode() + data,
            f"\r\n--{_BOUNDARY}--".encode(),
        ]
        url = f"{self._upstream}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart"
        headers = {"Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
        urllib.request.urlopen(urllib.request.Request(url, b"".join(body), headers), timeout=120).close()


def _query(text: str) -> dict[str, list[str]]:
    return parse_qs(text, keep_blank_values=True)


def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _checksum(data: bytes) -> str:
    import google_crc32c

    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
