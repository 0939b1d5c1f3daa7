"""An S3 server that is good for nothing but speed: it keeps objects in memory, and checks nothing.

    python tests/bucket_sink.py PORT [--latency-s 0.03] [--connection-mb-s 100]

moto takes longer over an upload in parts than any client does; this one lets a benchmark see the clients. It knows
buckets by heart, and PutObject, GetObject with ranges, HeadObject, ListObjectsV2 of one page and uploads in parts. It
can be as far away as a real bucket: each request then waits, and the bodies of a connection come at a bounded rate.
"""

import argparse
import itertools
import math
import socketserver
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import parse_qs, unquote, urlsplit

_objects: dict[str, bytes | bytearray] = {}
_parts: dict[str, dict[int, bytes | bytearray]] = {}
_ids = itertools.count()
_READ_BYTES = 2**18


class Connection(socketserver.StreamRequestHandler):
    """One client's connection, with a thread of its own."""

    rbufsize = 2**16
    disable_nagle_algorithm = True
    latency_s = 0.0
    bytes_per_s = math.inf

    def handle(self) -> None:
        """Answer its requests, one after the other."""
        with suppress(ConnectionError):
            while first := self.rfile.readline().decode("latin-1"):
                method, target, _ = first.split(" ")
                headers = dict(self._headers())
                if headers.get("expect", "").lower() == "100-continue":
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(self.latency_s)
                status, answer_headers, answer = respond(method, target, headers, self._body(headers))
                head = {"Content-Length": str(len(answer)), **answer_headers}
                text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
                self.wfile.write(f"HTTP/1.1 {status} OK\r\n{text}\r\n".encode())
                if method != "HEAD":
                    self.wfile.write(answer)

    def _headers(self) -> Iterator[tuple[str, str]]:
        while (line := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _body(self, headers: Mapping[str, str]) -> bytes | bytearray:
        """Read a body; `aws-chunked` and chunked ones are taken apart, and their trailers are left out."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            raw = bytearray()
            while size := int(self.rfile.readline(), 16):
                raw += self._read(size)
                self.rfile.readline()
            while self.rfile.readline() != b"\r\n":
                pass
        else:
            raw = self._read(int(headers.get("content-length") or 0))
        return _without_chunks(raw) if "aws-chunked" in headers.get("content-encoding", "") else raw

    def _read(self, size_bytes: int) -> bytearray:
        """Read so many bytes, no faster than they may come."""
        data, began = bytearray(size_bytes), time.monotonic()
        view, filled = memoryview(data), 0
        while filled < size_bytes:
            count = self.rfile.readinto(view[filled : filled + _READ_BYTES])
            if not count:
                raise ConnectionResetError
            filled += count
            time.sleep(max(0.0, began + filled / self.bytes_per_s - time.monotonic()))
        return data


def respond(
    method: str, target: str, headers: Mapping[str, str], body: bytes | bytearray
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


def _content(
    data: bytes | bytearray, wanted: str | None, method: str
) -> tuple[int, dict[str, str], bytes | memoryview]:
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


def _without_chunks(raw: bytearray) -> bytearray:
    data, position = bytearray(), 0
    while True:
        end = raw.index(b"\r\n", position)
        size = int(raw[position:end].split(b";")[0], 16)
        if size == 0:
            return data
        data += raw[end + 2 : end + 2 + size]
        position = end + 2 + size + 2


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection; all end with the process."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--latency-s", type=float, default=0.0, help="how long each request waits")
    parser.add_argument("--connection-mb-s", type=float, default=math.inf, help="how fast a connection's bodies come")
    options = parser.parse_args()
    Connection.latency_s, Connection.bytes_per_s = options.latency_s, 1e6 * options.connection_mb_s
    with Server(("127.0.0.1", options.port), Connection) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
