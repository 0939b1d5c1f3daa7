"""What documents and datasets are known by: another name for whatever is other, and for nothing else."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import make_byte_tokenizer
from dumps import exchange, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain import storage
from scaletrain.config import StorageSection
from scaletrain.config_data import DataSection
from scaletrain.data.formats import list_files
from scaletrain.data.identity import dataset_id, part_keys
from scaletrain.data.leakage import load_leakage
from scaletrain.data.parts import cut_into_parts
from scaletrain.data.tokenise import tokenise

CHANGES: dict[str, dict[str, Any]] = {
    "cleaning": {"cleaning": ["tidy_spaces", "drop_empty_turns"]},
    "settings of a step": {"cleaning": [{"replace_urls": {"placeholder": "<url>"}}]},
    "lengths": {"min_chars": 2},
    "system prompt": {"system_prompt": "Be kind."},
    "fingerprints": {"similarity": 0.7},
    "no fingerprints": {"duplicates": "exact"},
}


def section_of(*corpora: dict[str, Any], **data: Any) -> DataSection:
    """The data section of these corpora."""
    return DataSection.model_validate({"corpora": corpora, **data})


def keys_of(section: DataSection, *, tokenizer_hash: str = "t") -> list[str]:
    """The keys of all parts of the corpora, as they are now."""
    parts = cut_into_parts([list_files(each) for each in section.corpora], section.corpora)
    return part_keys(parts, section, tokenizer_hash=tokenizer_hash, leakage=load_leakage(section.leakage))


def test_whatever_makes_other_documents_has_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, files and what lies beside them, the tokenizer, the template, versions of packages, one's own code."""
    rows: list[object] = [exchange("How are you?", "Fine!")]
    path = tmp_path / "a.jsonl"
    talk = {"format": "messages", "source": str(write_jsonl(path, rows))}
    (tmp_path / "own_code_of_keys.py").write_text("def step(conversation):\n    return conversation\n")
    monkeypatch.syspath_prepend(tmp_path)
    template, benchmark, step = tmp_path / "t.jinja", tmp_path / "b.txt", "own_code_of_keys:step"
    benchmark.write_text("one two three four five six seven eight nine\n")
    template.write_text("1")

    def key(of: dict[str, Any] = talk, **data: Any) -> str:
        [found] = keys_of(section_of(of, **data))
        return found

    keys = [key(), keys_of(section_of(talk), tokenizer_hash="other")[0]]
    keys += [key(**change) for change in CHANGES.values()]
    keys += [key({**talk, "limit": 3}), key({**talk, "licence": "MIT"}), key(leakage=[str(benchmark)])]
    keys += [key(cleaning=[step]), key(chat_template=str(template))]
    benchmark.write_text("nine eight seven six five four three two one\n")
    template.write_text("2")
    (tmp_path / "own_code_of_keys.py").write_text("def step(conversation):\n    return conversation  # edited\n")
    importlib.reload(sys.modules["own_code_of_keys"])
    keys += [key(leakage=[str(benchmark)]), key(cleaning=[step]), key(chat_template=str(template))]
    write_jsonl(path, rows)  # the same bytes, but who knows
    keys += [key()]
    monkeypatch.setattr("scaletrain.data.cleaning.version", lambda package: f"another {package}")
    keys += [key()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("format_name", "file", "beside"),
    [("x_archive", "tweets.js", "account.js"), ("hf_disk", "x.arrow", "dataset_info.json")],
)
def test_a_file_that_is_read_beside_others_counts(format_name: str, file: str, beside: str, tmp_path: Path) -> None:
    """Whose archive it is, and a dataset's licence: with it there, another and again another one."""
    (tmp_path / file).write_bytes(b"x")
    section = section_of({"format": format_name, "source": str(tmp_path)})
    names, datasets = set(), set()
    for content in (None, b"a", b"b"):
        if content is not None:
            storage.write_bytes(str(tmp_path / beside), content)
        names |= {*keys_of(section)}
        files = [list_files(each) for each in section.corpora]
        datasets |= {dataset_id(section, files, tokenizer_hash="t", leakage=None)}
    assert len(names) == len(datasets) == 3


ROWS = ["oops", exchange("Hi", "Ho"), exchange("See http://a.example", "  A   b "), exchange("你好", "好" * 9)]
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "seq_len": st.sampled_from([64, 128]),
        "validation": st.sampled_from([0.0, 0.5]),
        "hold_out": st.sampled_from(["author", "conversation"]),
        "duplicates": st.sampled_from(["exact", "near", "keep"]),
        "temperature": st.sampled_from([1.0, 2.0]),
        "max_epochs": st.sampled_from([1.0, 2.0]),
        "max_bad_rows": st.sampled_from([1, 9]),
        "min_turns": st.sampled_from([1, 3]),
        "min_chars": st.sampled_from([0, 5]),
        "max_chars": st.sampled_from([6, 500]),
        "system_prompt": st.sampled_from(["Be kind.", "Be quick."]),
        "cleaning": st.lists(
            st.sampled_from(["tidy_spaces", "replace_urls", "merge_turns", "check_length"]), max_size=2
        ),
    },
)
OF_CORPUS = st.fixed_dictionaries(
    {},
    optional={
        "limit": st.integers(1, 3),
        "name": st.sampled_from(["a", "b"]),
        "licence": st.sampled_from(["MIT", "CC0-1.0"]),
        "epochs": st.sampled_from([1.0, 2.0]),
    },
)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few rows of every kind."""
    return str(write_jsonl(tmp_path_factory.mktemp("dump") / "a.jsonl", ROWS))


@pytest.fixture(scope="module")
def rows_by_key() -> dict[str, list[object]]:
    """What was made under each key so far."""
    return {}


@settings(max_examples=80, deadline=None)
@given(data=SECTIONS, of_corpus=OF_CORPUS)
def test_where_rows_differ_keys_differ(
    data: dict[str, Any], of_corpus: dict[str, Any], dump: str, rows_by_key: dict[str, list[object]]
) -> None:
    """Whatever two configurations are, under one key lie the same documents."""
    section = section_of({"format": "messages", "source": dump, **of_corpus}, **data)
    parts = cut_into_parts([list_files(each) for each in section.corpora], section.corpora)
    how: dict[str, Any] = {"storage_section": StorageSection(), "tokenizer": make_byte_tokenizer(), "leakage": None}
    tables = tokenise(section, parts, use_ray=False, **how)
    rows = [row for table in tables for row in table.to_pylist()]
    [key] = keys_of(section)
    assert rows_by_key.setdefault(key, rows) == rows
