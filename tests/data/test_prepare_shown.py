"""All that `scaletrain prepare` reads in one run on Ray, and its report in a real browser."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from browser import browser
from dumps import write_jsonl
from every_format import write_every_format
from test_prepare_everything import CLEANING, QUOTED, write_planted

from chromium import CHROMIUM
from commands import SCALETRAIN
from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.data.check import check_dataset
from scaletrain.data.formats import FORMATS

pytestmark = [
    pytest.mark.long,
    pytest.mark.real_model,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
REAL: list[dict[str, Any]] = [
    {"format": "chitchat", "name": "real chitchat", "source": "package:chitchat_dataset/dataset.json", "limit": 600},
    {"format": "chatterbot", "name": "real chatterbot", "source": "package:chatterbot_corpus/data/*/*.yml"},
]
PHONE = 390
# The nodes of the picture from left to right: where each stands, and what it says.
NODES = """[...document.querySelectorAll("svg.sankey text.label")].map(label => [
    Math.round(label.previousElementSibling.getBoundingClientRect().x), label.querySelector("title").textContent,
    label.childNodes[0].textContent.trim(), label.querySelector("tspan").textContent])"""
OVERFLOWING = """[...document.querySelectorAll("body *")].filter(each => {
    for (let above = each.parentElement; above; above = above.parentElement)
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(above).overflowX)) return false;
    return each.getBoundingClientRect().right > innerWidth;
}).map(each => each.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a dataset of every format, planted rows, and both packages, by the command line on Ray."""
    pytest.importorskip("chitchat_dataset")
    pytest.importorskip("chatterbot_corpus")
    folder = tmp_path_factory.mktemp("shown")
    dumps = [*write_every_format(folder / "dumps"), write_planted(folder / "planted")]
    leakage = write_jsonl(folder / "benchmark.jsonl", [{"question": QUOTED, "answer": "72"}])
    steps = [step for step in CLEANING if not (isinstance(step, dict) and "identify_language" in step)]
    config = {
        "name": "shown",
        "storage": {"root": str(folder / "bucket")},
        "model": {"init": "random", "size": {"vocab_size": 1000, "hidden_size": 16, "num_heads": 2}},
        "data": {
            "corpora": [*(dump.corpus() for dump in dumps), *REAL],
            "cleaning": [*steps, "identify_language"],
            "leakage": [str(leakage)],
            "seq_len": 1024,
        },
        "train": {"steps": 1},
    }
    (folder / "run.yaml").write_text(dump_config(Config.model_validate(config)))
    command = [SCALETRAIN, "prepare", str(folder / "run.yaml")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # a format of the tests' own is read there too
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_every_format_and_all_languages_are_in_it(dataset: str) -> None:
    """Each corpus gives something, pairs aside; chatterbot's folders come with their languages; all is sound."""
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    assert len(statistics["corpora"]) == len(FORMATS) - 1 + 2 + len(REAL)
    assert all(corpus["kept"] > 0 for corpus in statistics["corpora"])
    assert len(statistics["corpora"][-1]["languages"]) >= 20
    assert check_dataset(dataset).problems == []


def test_a_browser_shows_the_numbers_of_the_statistics(dataset: str, tmp_path: Path) -> None:
    """The funnel has what stats.json has; wide and on a phone, light and dark; nothing is fetched, no error told."""
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    report = f"file://{dataset}/report.html"
    with browser(tmp_path) as chromium:
        chromium.open(report, width=1280, dark=True)
        dark = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
        chromium.open(report, width=PHONE)
        assert chromium.evaluate("document.documentElement.scrollWidth") == PHONE
        assert chromium.evaluate(OVERFLOWING) == []
        chromium.open(report, width=1280)
        assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
        nodes = chromium.evaluate(NODES)
        text = chromium.evaluate("document.body.innerText")
        assert set(chromium.requests) == {report} and chromium.messages == []
    check_columns(nodes, statistics["flows"])
    for corpus in statistics["corpora"]:
        assert corpus["name"] in text and f"{corpus['tokens']:,}" in text
    assert all(reason in text for corpus in statistics["corpora"] for reason in corpus["dropped"])


def check_columns(nodes: list[tuple[int, str, str, str]], flows: list[dict[str, Any]]) -> None:
    """Each node's number is the sum of its rows, and of those that share the last node what the others leave."""
    for key, place in zip(("corpus", "language", "outcome"), sorted({x for x, *_ in nodes}), strict=True):
        expected: Counter[str] = Counter()
        for flow in flows:
            expected[flow[key]] += flow["rows"]
        shown = {}
        for x, title, label, count in nodes:
            name, _, number = title.rpartition(": ")
            if x == place:
                assert count == number and (label == name or label[:-1] == name[: len(label) - 1])
                shown[name] = int(number.replace(",", ""))
        named = shown.keys() & expected.keys()
        assert {name: shown[name] for name in named} == {name: expected[name] for name in named}
        assert sum(shown.values()) == expected.total() and len(shown.keys() - named) <= 1
