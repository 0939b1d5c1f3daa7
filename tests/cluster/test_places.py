"""places: init fills the marked lines and nothing else, however often it runs."""

from pathlib import Path

import pytest

from scaletrain.cluster.places import fill_places, find_places, rewrite
from scaletrain.errors import ConfigError

TEXT = """\
# a comment: with a colon
region: "UNFILLED"  # init: region
groups: &groups
  - "UNFILLED"  # init: group
key: &key
  "UNFILLED"  # init: key
mounts:
  ~/a/src: "UNFILLED"  # init: project/src
  ~/a/b: "UNFILLED"  # init: project/b
ips: ["UNFILLED"]  # init: ips
untouched:   {a: 1}   # init is a word
"""
VALUES = {"region": "us-east-1", "group": "sg-1", "key": "k", "project": "/home/me/my project", "ips": ["1", "2"]}


def test_every_marked_line_is_filled_and_the_others_stay() -> None:
    """Comments, anchors, order and spaces belong to the user."""
    assert fill_places(TEXT, VALUES, source="x") == (
        "# a comment: with a colon\n"
        "region: us-east-1  # init: region\n"
        "groups: &groups\n"
        "  - sg-1  # init: group\n"
        "key: &key\n"
        "  k  # init: key\n"
        "mounts:\n"
        "  ~/a/src: /home/me/my project/src  # init: project/src\n"
        "  ~/a/b: /home/me/my project/b  # init: project/b\n"
        "ips: ['1', '2']  # init: ips\n"
        "untouched:   {a: 1}   # init is a word\n"
    )


def test_filling_twice_changes_nothing() -> None:
    """A second init finds its own values."""
    once = fill_places(TEXT, VALUES, source="x")
    assert fill_places(once, VALUES, source="x") == once


def test_a_value_without_a_place_is_refused() -> None:
    """A file that lost a mark would silently keep an old value."""
    with pytest.raises(ConfigError, match="no line that ends with `# init: zone`; add it"):
        fill_places(TEXT, {**VALUES, "zone": "a"}, source="x")


def test_what_a_place_holds_can_be_read_back() -> None:
    """The next init knows what the last one chose."""
    found = find_places(fill_places(TEXT, VALUES, source="x"))
    assert (found["region"], found["project/src"]) == ("us-east-1", "/home/me/my project/src")


def test_a_file_is_rewritten_only_where_it_changes(tmp_path: Path) -> None:
    """`ray up` would take a new time stamp for a new file."""
    path = tmp_path / "cluster.yaml"
    path.write_text(TEXT)
    assert rewrite(path, VALUES)
    before = path.stat().st_mtime_ns
    assert not rewrite(path, VALUES)
    assert path.stat().st_mtime_ns == before


def test_an_emptied_place_is_found_again() -> None:
    """--destroy writes what is to be run into it, with a colon in the middle; a later init fills it as before."""
    empty = dict.fromkeys(("region", "group", "key", "project"), "UNFILLED, run: me")
    emptied = fill_places(fill_places(TEXT, VALUES, source="x"), empty, source="x")
    assert set(find_places(emptied).values()) == {"'UNFILLED, run: me'", "['1', '2']"}
    assert fill_places(emptied, VALUES, source="x") == fill_places(TEXT, VALUES, source="x")
