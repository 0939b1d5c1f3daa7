"""Google's XML API for uploads in parts, before fake-gcs-server, which does not know it; the rest is passed on to that.

    python tests/gcs_parts.py PORT UPSTREAM

As told in https://cloud.google.com/storage/docs/xml-api/post-object-multipart and the pages beside it.
"""

import asyncio
import base64
import hashlib
import itertools
import json
import re
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit

import google_crc32c

from fault_proxy import Request, answer_of, pass_body, request_of

_SMALLEST_PART_BYTES = 5 * 2**20  # but for the last one
_BOUNDARY = "a-boundary-that-no-test-writes"


@dataclass
class Upload:
    """An upload that was begun."""

    path: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class Uploads:
    """All uploads that were begun and not ended, and the store that their objects go to."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._uploads: dict[str, Upload] = {}
        self._ids = itertools.count(1)

    def respond(self, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Do what a request asks, and return status, headers and body of the answer."""
        query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
        if "uploads" in query:
            return self._begin(request)
        name = query["uploadId"][0]
        upload = self._uploads.get(name)
        if upload is None or upload.path != request.path:
            return _error(404, "NoSuchUpload")
        if request.method == "PUT":
            upload.parts[int(query["partNumber"][0])] = body
            return 200, {"ETag": _etag(body), "X-Goog-Hash": f"crc32c={_checksum(body)}"}, b""
        if request.method == "POST":
            return self._finish(name, upload, body.decode())
        del self._uploads[name]
        return 204, {}, b""

    def _begin(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        bucket = request.path.split("/")[1]
        try:
            urllib.request.urlopen(f"{self._upstream}/storage/v1/b/{bucket}", timeout=30).close()
        except urllib.error.HTTPError:
            return _error(404, "NoSuchBucket")
        start = "x-goog-meta-"
        metadata = {key.removeprefix(start): text for key, text in request.headers.items() if key.startswith(start)}
        name = f"upload-{next(self._ids)}"
        self._uploads[name] = Upload(request.path, metadata)
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


def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _checksum(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


async def main() -> None:
    """Serve until the process is ended."""
    upstream = urlsplit(sys.argv[2])
    uploads = Uploads(sys.argv[2])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests, or pass them on over a connection of its own."""
        store: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = request_of(head)
                query = request.target.partition("?")[2]
                if not request.target.startswith(("/storage/", "/upload/")) and re.search(
                    "(^|&)(uploads|uploadId)(=|&|$)", query
                ):
                    body = await reader.readexactly(int(request.headers.get("content-length", "0")))
                    status, headers, answer = await asyncio.to_thread(uploads.respond, request, body)
                    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
                    writer.write(f"HTTP/1.1 {status} Done\r\n{lines}Content-Length: {len(answer)}\r\n\r\n".encode())
                    writer.write(answer)
                    await writer.drain()
                    continue
                if store is None:
                    store = await asyncio.open_connection(upstream.hostname, upstream.port, limit=2**20)
                store[1].write(head)
                await pass_body(reader, store[1], request.headers)
                answer_head = await store[0].readuntil(b"\r\n\r\n")
                status, answer_headers = answer_of(answer_head)
                writer.write(answer_head)
                await pass_body(store[0], writer, {} if request.method == "HEAD" or status == 204 else answer_headers)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client or the store has gone
        finally:
            writer.close()
            if store is not None:
                store[1].close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=2**20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
