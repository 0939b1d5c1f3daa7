"""What a tokenizer is trained on, and what is said where there is nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
from dumps import exchange, write_jsonl
from prepared import Configure

from scaletrain.data.corpus_texts import corpus_texts
from scaletrain.data.prepare import prepare
from scaletrain.errors import DataError


def test_corpora_take_turns(configure: Configure, tmp_path: Path) -> None:
    """One conversation of each, whatever their lengths, cleaned; what is dropped gives nothing."""
    rows = {"a": [exchange("a1", "a2"), exchange("alone"), exchange("a3", "a4")], "b": [exchange("b1", "b2")]}
    corpora = [
        {"format": "messages", "name": name, "source": str(write_jsonl(tmp_path / f"{name}.jsonl", each))}
        for name, each in rows.items()
    ]
    assert list(corpus_texts(configure(*corpora).data)) == ["a1", "a2", "b1", "b2", "a3", "a4"]


def test_corpora_without_a_conversation_are_told_as_preparing_tells_them(configure: Configure, tmp_path: Path) -> None:
    """Each with its rows and reasons, where a tokenizer is to be trained on them too: "empty" would help nobody."""
    rows: dict[str, list[object]] = {"csv": ["question;answer", "Hi;Ho"], "short": [exchange("alone")], "empty": []}
    corpora: list[dict[str, Any]] = [
        {"format": "messages", "name": name, "source": str(write_jsonl(tmp_path / f"{name}.jsonl", each))}
        for name, each in rows.items()
    ]
    with pytest.raises(DataError) as raised:
        prepare(configure(*corpora), use_ray=False)
    said = str(raised.value)
    assert re.search(
        r"csv: no conversation in 1 file\(s\); 2 unreadable rows, as .*csv\.jsonl:1: not JSON.*; correct", said
    )
    assert re.search(
        r"short: none of its 1 conversations can be used; .*\n  1 too_few_turns, as .*short\.jsonl:1", said
    )
    assert "empty: no conversation in 1 file(s); check the source" in said
