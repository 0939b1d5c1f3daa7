"""An S3 server that is good for nothing but speed: it keeps objects in memory, and checks nothing.

    python tests/bucket_sink.py PORT

moto takes longer over an upload in parts than any client does; this one lets a benchmark see the clients. It knows
buckets by heart, and PutObject, GetObject with ranges, HeadObject, ListObjectsV2 of one page and uploads in parts.
"""

import asyncio
import itertools
import sys
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote, urlsplit

_objects: dict[str, bytes] = {}
_parts: dict[str, dict[int, bytes]] = {}
_ids = itertools.count()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests, one after the other."""
    try:
        while True:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _body(reader, headers)
            status, answer_headers, answer = respond(method, target, headers, body)
            head = {"Content-Length": str(len(answer)), **answer_headers}
            text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
            writer.write(f"HTTP/1.1 {status} OK\r\n{text}\r\n".encode())
            if method != "HEAD":
                writer.write(answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def respond(
    method: str, target: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes | memoryview]:
    """Do what a request asks, and return status, headers and body of the answer."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    name = unquote(url.path)
    if method == "POST" and "uploads" in query:
        upload = f"upload-{next(_ids)}"
        _parts[upload] = {}
        result = "InitiateMultipartUploadResult"
        return 200, {}, f"<{result}><UploadId>{upload}</UploadId></{result}>".encode()
    if method == "PUT" and "partNumber" in query:
        _parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
        return 200, {"ETag": f'"{next(_ids)}"'}, b""
    if method == "POST":
        parts = _parts.pop(query["uploadId"][0])
        _objects[name] = b"".join(parts[number] for number in sorted(parts))
        text = '<CompleteMultipartUploadResult><ETag>"0"</ETag></CompleteMultipartUploadResult>'
        return 200, {"ETag": '"0"'}, text.encode()
    if method == "PUT":
        _objects[name] = body
        return 200, {"ETag": '"0"'}, b""
    if "list-type" in query:
        return 200, {}, _listing(name, query.get("prefix", [""])[0]).encode()
    if name not in _objects:
        return (404, {}, b"<Error><Code>NoSuchKey</Code></Error>") if name.count("/") > 1 else (200, {}, b"")
    return _content(_objects[name], headers.get("range"), method)


def _content(data: bytes, wanted: str | None, method: str) -> tuple[int, dict[str, str], bytes | memoryview]:
    headers = {"ETag": '"0"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT", "Accept-Ranges": "bytes"}
    if method == "HEAD":
        return 200, {**headers, "Content-Length": str(len(data))}, b""
    if wanted is None:
        return 200, headers, memoryview(data)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
    return 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, memoryview(data)[start:stop]


def _listing(bucket: str, prefix: str) -> str:
    start = f"{bucket.rstrip('/')}/"
    items = "".join(
        f'<Contents><Key>{name.removeprefix(start)}</Key><Size>{len(data)}</Size><ETag>"0"</ETag>'
        "<LastModified>2026-11-24T00:00:00Z</LastModified></Contents>"
        for name, data in _objects.items()
        if name.startswith(start + prefix)
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Read a body; `aws-chunked` and chunked ones are taken apart, and their trailers are left out."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        data = bytearray()
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            data += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        raw = bytes(data)
    else:
        raw = await reader.readexactly(int(headers.get("content-length") or 0))
    if "aws-chunked" not in headers.get("content-encoding", ""):
        return raw
    data, position = bytearray(), 0
    while True:
        end = raw.index(b"\r\n", position)
        size = int(raw[position:end].split(b";")[0], 16)
        if size == 0:
            return bytes(data)
        data += raw[end + 2 : end + 2 + size]
        position = end + 2 + size + 2


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=2**22)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
