"""firewall: security groups as the text of a packet filter; that it holds is shown in test_security_groups.py."""

from scaletrain.emulator.firewall import Rule, filter_text


def test_only_what_a_rule_names_is_admitted() -> None:
    """One line for each source, and a policy that drops the rest."""
    text = filter_text([Rule("tcp", 22, 22, ("203.0.113.7/32", "172.31.0.9"))], [], services=("169.254.169.254",))
    assert "type filter hook input priority 0; policy drop;" in text
    assert "ip saddr 203.0.113.7/32 tcp dport 22 accept" in text
    assert "ip saddr 172.31.0.9 tcp dport 22 accept" in text
    assert text.count("accept") == 7


def test_all_protocols_need_no_port() -> None:
    """Protocol -1 is everything from that source."""
    text = filter_text([], [Rule("-1", None, None, ("0.0.0.0/0",))], services=("169.254.169.254",))
    assert "    ip daddr 0.0.0.0/0 accept\n" in text


def test_the_filter_is_replaced_in_one_step() -> None:
    """The table is made if need be, deleted and made anew within one program."""
    lines = filter_text([], [], services=("169.254.169.254",)).splitlines()
    assert lines[:3] == [
        "table inet cloud_firewall",
        "delete table inet cloud_firewall",
        "table inet cloud_firewall {",
    ]
