"""Addresses that a server listens on."""

import ipaddress
import re
import socket

from scaletrain.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; an IPv6 one may stand in brackets."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def asks_for_loopback(authority: str) -> bool:
    """Whether the Host of a request, with or without a port, is a name of this machine that no other machine gives."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", authority.strip().lower())
    return match is not None and is_loopback(match[1])


def bind(host: str, port: int) -> socket.socket:
    """Take an address for a server, before anything slow is done; raises ConfigError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({exc.strerror or exc}); give another with --host and --port"
        ) from exc
    return bound
