"""Who asks a server that only this machine reaches, and that asks for no key: programs here, no page of a web site.

A page of evil.example may have its own name lead to 127.0.0.1 (DNS rebinding) and would then be, to the browser, of
the same origin as this server. What the browser cannot be made to send is another Host than that name.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from scaletrain.listening import asks_for_loopback
from scaletrain.serve.api_errors import ApiError
from scaletrain.serve.wire import Client


def for_this_machine(app: ASGIApp) -> ASGIApp:
    """The application, which refuses every request that is for the name of another machine."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        strange = [host for host in hosts if not asks_for_loopback(host)]
        if not strange:
            await app(scope, receive, send)
            return
        await Client(scope, receive, send).send_error(
            ApiError(
                403,
                f"this server asks for no key and answers this machine alone, as localhost or 127.0.0.1; the request "
                f"was for {strange[0][:200]!r}. To serve under that name, start it with --keys FILE "
                "(`scaletrain keys add NAME` makes one)",
                code="host_not_allowed",
            )
        )

    return checked
