"""`scaletrain judge serve`: the page, on loopback, or for judges elsewhere with a link each."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from scaletrain.errors import ConfigError
from scaletrain.judge.app import build_app
from scaletrain.judge.judging import Judging
from scaletrain.judge.names import judge_token
from scaletrain.listening import bind, is_loopback
from scaletrain.log import get_logger

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_DRAIN_S = 5

log = get_logger(__name__)


def check_address(host: str, judges: Sequence[str]) -> None:
    """Refuse an address that others can reach where anybody could vote; raises ConfigError."""
    if not judges and not is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and anybody there could vote under any name: name the "
            "judges with --judge NAME, once for each, and every one gets a link of their own"
        )


def serve(judging: Judging, *, host: str, port: int) -> None:
    """Serve until Ctrl-C; prints the links to stdout. Raises ConfigError where the address cannot be had."""
    import uvicorn

    with bind(host, port) as listening:
        listening.listen()  # the links are shown before the server accepts, and may be opened at once
        address = _address(host, listening.getsockname()[1])
        hosts = _LOOPBACK if is_loopback(host) else ("*",)  # elsewhere it takes a token that no other page knows
        app = build_app(judging, allowed_hosts=hosts)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_DRAIN_S)
        print("\n".join(links(judging, address)), flush=True)
        log.info("votes are kept in %s; Ctrl-C ends", judging.store.shown)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def links(judging: Judging, address: str) -> list[str]:
    """What to open: a link for each judge; the token stands behind #, which browsers send to nobody."""
    if not judging.judges:
        return [f"judge at {address}"]
    secret = judging.store.secret
    return [f"{name}: {address}#{quote(name)}:{judge_token(secret, name)}" for name in judging.judges]


def _address(host: str, port: int) -> str:
    bare = host.strip("[]")
    if bare in ("0.0.0.0", "::"):
        bare = socket.gethostname()
    return f"http://[{bare}]:{port}/" if ":" in bare else f"http://{bare}:{port}/"
