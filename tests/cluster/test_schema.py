"""schema: what Ray would refuse or pass over is said at once, all of it, with what was meant."""

from typing import Any

from scaletrain.cluster.schema import schema_problems

GOOD: dict[str, Any] = {
    "cluster_name": "c",
    "max_workers": 2,
    "provider": {"type": "aws", "region": "us-east-1"},
    "head_node_type": "head",
    "available_node_types": {"head": {"resources": {"CPU": 0}, "node_config": {}}},
}


def test_a_good_file_has_no_problems() -> None:
    """What Ray takes is taken."""
    assert schema_problems(GOOD) == []


def test_every_breach_is_listed_with_what_was_meant() -> None:
    """Ray itself stops at the first one, with a page of text."""
    tree = {**GOOD, "max_worker": 3, "idle_timeout_minutes": "five", "auth": {"ssh_usr": "me"}}
    tree["available_node_types"] = {"head": {"node_config": {}, "min_worker": 1}}
    assert schema_problems(tree) == [
        "auth.ssh_usr: Ray knows no such key; did you mean ssh_user?",
        "available_node_types.head.min_worker: Ray knows no such key; did you mean min_workers?",
        "available_node_types.head: resources is missing; add it",
        'idle_timeout_minutes: got "five"; give a value of type number',
        "max_worker: Ray knows no such key; did you mean max_workers?",
    ]


def test_a_key_of_the_provider_that_ray_would_pass_over_is_named() -> None:
    """The schema allows any key there, so a typing error would be silence."""
    tree = {**GOOD, "provider": {"type": "aws", "regoin": "us-east-1"}}
    assert schema_problems(tree) == ["provider.regoin: Ray would pass over it; did you mean region?"]


def test_rules_between_keys_are_held() -> None:
    """min_workers of all types fit into max_workers, and the head's type exists."""
    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 5}
    tree = {**GOOD, "head_node_type": "hed", "available_node_types": {**GOOD["available_node_types"], "cpu": worker}}
    assert schema_problems(tree) == [
        "head_node_type: got hed; name one of head, cpu",
        "max_workers: got 2, but the min_workers of all types are 5; raise it",
        "available_node_types.cpu: min_workers=5 is over max_workers=2",
    ]


def test_machines_of_ones_own_have_no_types() -> None:
    """Ray ends with an error in the middle otherwise."""
    tree = {**GOOD, "provider": {"type": "local", "head_ip": "a", "worker_ips": []}}
    assert schema_problems(tree) == ["available_node_types: machines of your own have no types; remove it"]
