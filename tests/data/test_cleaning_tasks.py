"""Cleaning where it happens: in the tasks that tokenise, with lists in a bucket, in this process and in Ray's."""

from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import make_byte_tokenizer
from dumps import exchange, write_jsonl

from scaletrain import storage
from scaletrain.config import StorageSection
from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.formats import list_files
from scaletrain.data.parts import END_OF_PART, cut_into_parts
from scaletrain.data.tokenise import tokenise


@pytest.mark.parametrize("use_ray", [False, True], ids=["here", "ray"])
def test_steps_run_where_tokens_are_made(
    use_ray: bool,
    tmp_path: Path,
    s3_bucket: str,
    s3_server: str,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row is accounted for: its language, the steps that changed it, or why and by which step it was dropped."""
    rows = [
        exchange("How  was your day?", "Quite good, mail me at a.b@example.com about it."),
        exchange("Wie war dein Tag heute?", "Ganz gut, danke, ich war am Fluss spazieren."),
        exchange("What the heck is that, darn?", "I have no idea, honestly."),
        exchange("https://only.example.com/a-link", "What is it about, please tell me?"),
    ]
    options: dict[str, Any] = {"endpoint_url": s3_server}
    storage.configure(s3_bucket, options)
    storage.write_text(f"{s3_bucket}/words.txt", "# mild\nheck\n")
    monkeypatch.chdir(tmp_path)  # where Ray's workers are not
    Path("more.txt").write_text("darn\n")
    section = DataSection(
        corpora=(Corpus(format="messages", source=str(write_jsonl(tmp_path / "a.jsonl", rows))),),  # type: ignore[call-arg]
        cleaning=(
            *("tidy_spaces", "replace_urls", "mask_personal_data"),
            {"identify_language": {"keep": ["en"], "min_confidence": 0.2}},
            {"check_profanity": {"lists": [f"{s3_bucket}/words.txt", "more.txt"]}},
            "annotate",
        ),
    )  # type: ignore[call-arg]
    tables = tokenise(
        section,
        cut_into_parts([list_files(corpus) for corpus in section.corpora], section.corpora),
        storage_section=StorageSection(root=s3_bucket, options=options),
        tokenizer=make_byte_tokenizer(),
        leakage=None,
        use_ray=use_ray,
    )
    columns = ("row", "language", "changes", "annotations", "reason", "detail", "step")
    rows_made = [row for table in tables for row in table.to_pylist() if row["reason"] != END_OF_PART]
    found = sorted((tuple(row[name] for name in columns) for row in rows_made), key=lambda row: row[0])
    assert found == [
        (0, "en", ["tidy_spaces", "mask_personal_data"], [("words", 12.0)], None, None, None),
        (1, "de", [], [], "other_language", "de", "identify_language"),
        (2, "en", [], [], "profanity", "2 listed words", "check_profanity"),
        (3, "en", ["replace_urls"], [("words", 7.0)], "empty_turn", "", "check_validity"),
    ]
