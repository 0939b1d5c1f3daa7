"""Fixtures of the data tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dumps import exchange, write_chitchat, write_jsonl
from prepared import Configure
from reddit_dump import comment, submission

from scaletrain.config import Config


@pytest.fixture(scope="module")
def local_ray(s3_server: str) -> Iterator[None]:
    """A Ray cluster of this machine, for as long as a module's tests need it; its workers know the S3 server."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Make a configuration of a tiny random model and these corpora, in a bucket of this test's."""

    def make(
        *corpora: dict[str, Any], root: str | None = None, options: dict[str, Any] | None = None, **data: Any
    ) -> Config:
        return Config.model_validate(
            {
                "name": "test",
                "storage": {"root": root or str(tmp_path / "bucket"), "options": options or {}},
                "model": {"init": "random", "size": {"vocab_size": 300, "hidden_size": 16, "num_heads": 2}},
                "data": {"corpora": corpora, "seq_len": 128, **data},
                "train": {"steps": 1},
            }
        )

    return make


@pytest.fixture
def talk(tmp_path: Path) -> dict[str, Any]:
    """Sixty short conversations in the messages format, five of them twice."""
    rows = [exchange(f"How are you, number {i}?", "Fine! " * (i % 7 + 1), "Bye", f"See you, {i}") for i in range(55)]
    return {"format": "messages", "source": str(write_jsonl(tmp_path / "talk.jsonl", [*rows, *rows[:5]]))}


@pytest.fixture
def many_formats(tmp_path: Path) -> tuple[dict[str, Any], ...]:
    """Corpora of every format, with several files, long and short conversations, dropped ones and bad rows."""
    for part in range(3):
        rows: list[object] = [exchange(*(f"{part} {i} {n} café 你好 👋" for n in range(2 + i % 20))) for i in range(40)]
        write_jsonl(tmp_path / "messages" / f"part-{part}.jsonl", [*rows, "oops", exchange("alone")])
    line = "I have heard that one before, " * 12
    dialogues = {}
    for i in range(30):
        rows_of_bob = [("bob", f"Hello {i}"), ("bob", line[: i * 9])]
        dialogues[f"id-{i}"] = [rows_of_bob, [("amy", f"Hi {i}")], [("bob", line)]] * (1 + i % 5)
    write_chitchat(tmp_path / "dataset.json", {**dialogues, "monologue": [[("bob", "Anyone?")]]})
    (tmp_path / "yaml").mkdir()
    for name in ("food", "humor"):
        lines = "".join(f"- - 你喜欢{name}吗? {i}\n  - はい {i}\n" for i in range(20))
        (tmp_path / "yaml" / f"{name}.yml").write_text(f"categories:\n- {name}\nconversations:\n{lines}", "utf-8")
    posts = [submission(f"a{i}", f"Question {i}?") for i in range(9)]
    replies = [comment(f"b{i}", f"a{i % 8}", f"t3_a{i % 8}", f"Answer {i}", score=i) for i in range(30)]
    write_jsonl(tmp_path / "reddit" / "RS_2020-01.jsonl", [*posts, "oops"])
    write_jsonl(tmp_path / "reddit" / "RC_2020-01.jsonl", [*replies, comment("c", "zz", "t3_zz", "whose?")])
    return (
        {"format": "messages", "source": str(tmp_path / "messages")},
        {"format": "chitchat", "source": str(tmp_path / "dataset.json"), "limit": 25},
        {"format": "chatterbot", "source": f"{tmp_path}/yaml/*.yml", "name": "yaml"},
        {"format": "reddit", "source": str(tmp_path / "reddit"), "min_score": 0, "licence": "theirs"},
    )
