"""One preparation of a dump of every format, with every cleaning step: no row is lost, and all of it can be read."""

import html
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from dumps import exchange, write_jsonl
from every_format import Dump, talks, write_every_format
from typer.testing import CliRunner

from scaletrain import storage
from scaletrain.cli import app
from scaletrain.config import Config
from scaletrain.config_dpo import PAIRS_FORMAT
from scaletrain.config_file import dump_config
from scaletrain.data.cleaning import STEPS
from scaletrain.data.formats import FORMATS
from scaletrain.data.provenance import read_provenance
from scaletrain.data.shards import load_index

CLEANING: list[str | dict[str, Any]] = [
    *("strip_html", "strip_markup", "fix_unicode", "tidy_spaces", "fold_width", "convert_chinese"),
    *("replace_urls", "replace_handles", {"remove_phrases": {"phrases": ["Sent from my phone"]}}),
    *("mask_personal_data", "drop_empty_turns", "merge_turns", "drop_bots"),
    *({"identify_language": {"keep": ["en", "zh"]}}, {"check_profanity": {"words": ["heck"]}}),
    *("check_length", "check_repetition", "check_characters", "check_words", "check_balance"),
    *("annotate", {"check_annotations": {"min": {"words": 1}}}),
]
LONG_WORDS = (
    "Notwithstanding considerable misunderstandings, international organizations unquestionably underestimated "
    "environmental responsibilities, although representatives occasionally acknowledged administrative difficulties "
    "surrounding telecommunications infrastructure, pharmaceutical manufacturing, transportation, agricultural "
    "experimentation, disproportionate industrialization."
)
QUOTED = "Natalia sold clips to forty eight of her friends in April and then she sold half as many in May"


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> list[Dump]:
    """Every format, and one more corpus, of a row for each reason to leave a row out."""
    folder = tmp_path_factory.mktemp("dumps")
    return [*write_every_format(folder), write_planted(folder / "planted")]


def write_planted(folder: Path) -> Dump:
    """A row for each reason that cleaning and what comes after it have, and three that are kept, changed."""
    kept, near, same, long, *others = talks("planted", 10, turns=4)
    near = talks("near", 1, turns=9)[0] + ["Yes, I think so too."]
    left_out = {
        "all_caps": [text.upper() for text in others[0]],
        "bot": ["Who are you, may I ask?", "I am a bot, and this action was performed automatically."],
        "duplicate": same,
        "leaked": [f"{QUOTED}. How many?", others[1][0]],
        "near_duplicate": [*near[:-1], "Yes."],
        "odd_word_length": ["Please tell me more about this.", LONG_WORDS],
        "one_sided": ["Why?", " ".join(text for talk in talks("long", 30) for text in talk)],
        "other_language": ["Wie war dein Tag heute, lieber Freund?", "Ganz gut, danke, ich war am Fluss spazieren."],
        "profanity": ["What the heck is that?", "I have no idea, honestly."],
        "repeated_lines": [others[2][0], "\n".join([others[2][1]] * 6)],
        "repeated_turns": [others[3][0], others[3][1]] * 4,
        "too_few_letters": ["Count for me, please.", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24"],
        "too_few_turns": ["https://only.example.com/a-link", "What is it about, please tell me?"],
        "too_many_symbols": ["Draw it for me, please.", "|----|====|####|----|====|####|----|"],
        "too_short": ["Hi", "Ho"],
    }
    changed = [
        [
            f"<b>{long[0]}</b> See [this](https://example.org/a).",
            f"Mail me at a.b@example.com about it. {long[1]} Sent from my phone",
        ],
        ["今天天氣怎麼樣，你知道嗎？", "天氣很好，我們去公園走走吧。"],
    ]
    rows: list[object] = [exchange(*talk) for talk in (kept, same, near, *changed, *left_out.values())]
    of_a_tool = {"messages": [{"role": "tool", "content": "42"}]}
    answer_first = {"messages": exchange(*others[4][:3])["messages"][1:]}  # type: ignore[index]
    write_jsonl(folder / "planted.jsonl", [*rows, "oops", of_a_tool, answer_first])
    dropped = dict.fromkeys((*left_out, "unknown_role", "starts_with_assistant"), 1)
    settings = {"name": "planted <&> odd"}
    return Dump("messages", folder, kept=5, dropped=dropped, bad_rows=1, settings=settings)


def call(*arguments: str) -> str:
    """Run a command in this process; returns its stdout."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def config_file(dumps: list[Dump], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A configuration of all of it, on a tiny random model."""
    folder = tmp_path_factory.mktemp("everything")
    leakage = write_jsonl(folder / "benchmark.jsonl", [{"question": QUOTED, "answer": "72"}])
    config = Config.model_validate(
        {
            "name": "everything",
            "storage": {"root": str(folder / "bucket")},
            "model": {"init": "random", "size": {"vocab_size": 400, "hidden_size": 16, "num_heads": 2}},
            "data": {
                "corpora": [dump.corpus() for dump in dumps],
                "cleaning": CLEANING,
                "min_chars": 12,
                "leakage": [str(leakage)],
                "seq_len": 512,
                "validation": 0.1,
            },
            "train": {"steps": 1},
        }
    )
    (folder / "run.yaml").write_text(dump_config(config))
    return str(folder / "run.yaml")


@pytest.fixture(scope="module")
def dataset(config_file: str) -> str:
    """The URL that `scaletrain prepare` printed."""
    return call("prepare", config_file, "--local").strip()


def statistics_of(dataset_url: str) -> dict[str, Any]:
    return orjson.loads(storage.read_bytes(storage.join(dataset_url, "stats.json")))  # type: ignore[no-any-return]


def provenance_of(dataset_url: str) -> list[dict[str, Any]]:
    return pa.concat_tables(read_provenance(dataset_url, load_index(dataset_url))).to_pylist()


def test_every_format_and_every_step_is_in_it(dumps: list[Dump]) -> None:
    """A format or a step that is added has to be added here; not pairs, nor what needs a model of some size."""
    assert {dump.format for dump in dumps} == {*FORMATS, "every_format:read_row"} - {PAIRS_FORMAT}
    assert sorted(name for step in CLEANING for name in ([step] if isinstance(step, str) else step)) == sorted(
        {*STEPS} - {"check_perplexity"}
    )


def test_no_row_is_lost_without_a_reason(dataset: str, dumps: list[Dump]) -> None:
    """What was written is counted in stats.json: kept, dropped by reason or unreadable; each corpus gives something."""
    counted = statistics_of(dataset)["corpora"]
    for corpus, dump in zip(counted, dumps, strict=True):
        found = (corpus["name"], corpus["kept"], corpus["dropped"], corpus["bad_rows"])
        assert found == (dump.name, dump.kept, dump.dropped, dump.bad_rows)
        assert corpus["read"] == corpus["kept"] + sum(corpus["dropped"].values()) > 0
        assert corpus["repeated"] == 0 < corpus["tokens"]


def test_the_provenance_tells_of_every_row_once(dataset: str, dumps: list[Dump]) -> None:
    """The same counts row by row, each row at a place of its own; what is kept is in a split, and nothing else is."""
    rows = provenance_of(dataset)
    for dump in dumps:
        own = [row for row in rows if row["corpus"] == dump.name]
        counts: Counter[str | None] = Counter()
        for row in own:
            counts[row["reason"]] += row["rows"]
        assert counts == Counter({None: dump.kept, "bad_row": dump.bad_rows} | dump.dropped) - Counter()
        kept = [row for row in own if row["reason"] is None]
        assert len({row["source"] for row in kept}) == len(kept)
        assert all(row["split"] is not None and (row["sample_ids"] or row["dropped_tokens"]) for row in kept)
        assert all(row["split"] is None and not row["sample_ids"] for row in own if row["reason"] is not None)


def test_tokens_add_up(dataset: str) -> None:
    """Those of the conversations kept are in the rows, or counted as left out by packing."""
    statistics = statistics_of(dataset)
    splits = statistics["splits"].values()
    in_rows = sum(split["tokens"] for split in splits)
    left_out = sum(sum(split["dropped_tokens"].values()) for split in splits)
    assert in_rows + left_out == sum(corpus["tokens"] for corpus in statistics["corpora"])
    assert sum(split["conversations"] for split in splits) == sum(corpus["kept"] for corpus in statistics["corpora"])
    assert in_rows == sum(split.tokens for split in load_index(dataset).splits.values())


def test_steps_leave_their_traces(dataset: str) -> None:
    """What each planted row was changed or dropped by is counted under its step."""
    steps = {step["name"]: step for step in statistics_of(dataset)["steps"]}
    for name in ("strip_html", "strip_markup", "remove_phrases", "mask_personal_data", "convert_chinese"):
        assert steps[name]["changed"] >= 1, name
    for name in ("check_repetition", "check_characters", "check_words", "check_balance", "drop_bots"):
        assert sum(steps[name]["dropped"].values()) >= 1, name


def test_the_report_names_every_corpus(dataset: str, dumps: list[Dump]) -> None:
    """And every reason for which a row was left out."""
    report = storage.read_text(storage.join(dataset, "report.html"))
    for dump in dumps:
        assert html.escape(dump.name) in report
        assert all(reason in report for reason in dump.dropped)


def test_check_finds_nothing_wrong(dataset: str) -> None:
    """`scaletrain data check` ends with 0."""
    assert "whole" in call("data", "check", dataset)


def test_one_row_of_each_corpus_is_explained(dataset: str, config_file: str, dumps: list[Dump]) -> None:
    """By its place in the dump: a row that is kept, and one for each reason; by the command and what it calls."""
    from scaletrain.data.provenance import explain

    first: dict[tuple[str, str | None], str] = {}
    for row in provenance_of(dataset):
        first.setdefault((row["corpus"], row["reason"]), row["source"])
    assert len(first) == sum(1 + len(dump.dropped) + bool(dump.bad_rows) for dump in dumps)
    for (corpus, reason), source in first.items():
        assert any((life.corpus, life.reason) == (corpus, reason) for life in explain(dataset, source))
    told = call("prepare", config_file, "--local", "--explain", first["planted <&> odd", "leaked"])
    assert "planted <&> odd" in told and "left out  leaked" in told and "benchmark.jsonl" in told
