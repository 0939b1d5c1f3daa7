"""A cloud's rules as packet filters: what it enforces outside a machine is enforced in the machine's own namespace.

As there: nothing comes in or goes out that no rule admits, the first rule that matches decides, answers to admitted
connections pass, and the metadata service is not filtered. Unlike there, a machine's root user could change the
filter. Only IPv4 is emulated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One kind of traffic, admitted or not: protocol ("-1": all), ports (None: all), the other side's networks."""

    protocol: str
    first_port: int | None
    last_port: int | None
    sources: tuple[str, ...]
    admits: bool = True


def filter_text(incoming: Iterable[Rule], outgoing: Iterable[Rule], *, services: Sequence[str]) -> str:
    """Return the nftables program for one machine; `services` are the cloud's own addresses, always reachable."""
    free = ", ".join(services)
    lines = [
        "table inet cloud_firewall",
        "delete table inet cloud_firewall",  # with the line above: replace it in one step, or make it
        "table inet cloud_firewall {",
        "  chain incoming {",
        "    type filter hook input priority 0; policy drop;",
        "    iif lo accept",
        "    ct state established,related accept",
        *_lines(incoming, "saddr"),
        "  }",
        "  chain outgoing {",
        "    type filter hook output priority 0; policy drop;",
        "    oif lo accept",
        "    ct state established,related accept",
        f"    ip daddr {{ {free} }} accept",
        *_lines(outgoing, "daddr"),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _lines(rules: Iterable[Rule], side: str) -> list[str]:
    return [f"    {match} {'accept' if rule.admits else 'drop'}" for rule in rules for match in _matches(rule, side)]


def _matches(rule: Rule, side: str) -> list[str]:
    """One match for each source: a set of addresses would have to be free of overlaps."""
    protocol = ""
    if rule.protocol in ("tcp", "6", "udp", "17"):
        name = "tcp" if rule.protocol in ("tcp", "6") else "udp"
        ports = "0-65535" if rule.first_port is None else f"{rule.first_port}-{rule.last_port}"
        # A range of one port, as 22-22, matches nothing with nftables 1.0.6.
        ports = str(rule.first_port) if rule.first_port == rule.last_port else ports
        protocol = f" {name} dport {ports}"
    elif rule.protocol in ("icmp", "1"):
        protocol = " ip protocol icmp"
    elif rule.protocol != "-1":
        protocol = f" ip protocol {rule.protocol}"
    return [f"ip {side} {source}{protocol}" for source in rule.sources]
