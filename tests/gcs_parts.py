"""Google's XML API for uploads in parts, before fake-gcs-server, which does not know it; the rest is passed on to that.

python tests/gcs_parts.py PORT UPSTREAM
"""

import asyncio
import sys
from urllib.parse import urlsplit

from fault_proxy import answer_of, pass_body, request_of
from scaletrain.emulator.gcs_uploads import Uploads, concerns_parts


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
                if concerns_parts(request.target):
                    body = await reader.readexactly(int(request.headers.get("content-length", "0")))
                    asked = (request.method, request.target, request.headers, body)
                    status, headers, answer = await asyncio.to_thread(uploads.respond, *asked)
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
