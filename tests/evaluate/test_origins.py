"""Where validation documents come from: every answer has its own language and conversation, cut or not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaletrain.config import Config
from scaletrain.data.prepare import Prepared, prepare
from scaletrain.data.provenance import read_provenance
from scaletrain.data.shards import load_index
from scaletrain.evaluate.answers import UNKNOWN, Answers
from scaletrain.evaluate.contender import Contender
from scaletrain.evaluate.origins import with_origins
from scaletrain.evaluate.rows import RowsToScore, score_here
from scaletrain.layout import RunLayout
from tiny import tiny_model

LANGUAGES = ("en", "fr", "de")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Prepared]:
    """A corpus of three languages whose conversations are equally long, and a few that are cut."""
    folder = tmp_path_factory.mktemp("origins")
    rows = []
    for number in range(240):
        language = LANGUAGES[number % 3]
        answers = 12 if number % 24 == 0 else 1
        messages = []
        for turn in range(answers):
            messages.append({"role": "user", "content": f"{number:03d} {turn:02d}?"})
            messages.append({"role": "assistant", "content": f"{language} {number:03d} {turn:02d}."})
        rows.append({"messages": messages, "language": language})
    pq.write_table(pa.Table.from_pylist(rows), folder / "talk.parquet")
    corpus = {"format": "parquet", "columns": {"messages": "messages", "language": "language"}}
    tree: dict[str, Any] = {
        "name": "origins",
        "storage": {"root": str(folder / "bucket")},
        "model": {"init": "random", "size": {"vocab_size": 320, "hidden_size": 32, "num_layers": 1, "num_heads": 2}},
        "data": {
            "corpora": [corpus | {"source": str(folder / "talk.parquet")}],
            "seq_len": 128,
            "validation": 0.5,
            "duplicates": "exact",
        },
        "train": {"steps": 4, "global_batch_size": 4},
    }
    config = Config.model_validate(tree)
    return config, prepare(config, use_ray=False)


@pytest.fixture(scope="module")
def answers(prepared: tuple[Config, Prepared]) -> tuple[Answers, list[str]]:
    """The answers with their origins, and what was said in each, in the same order."""
    config, inputs = prepared
    index = load_index(inputs.dataset_url)
    contender = Contender(RunLayout(config.storage.root, config.name), config, inputs.model_url, None)
    rows = index.splits["validation"].rows
    work = RowsToScore(contender, inputs.dataset_url, index, rows, 2, "cpu", "fp32")
    said: list[str] = []
    tokenizer = contender.tokenizer()

    class Listening:
        """The tokenizer, which notes what it decodes."""

        def batch_decode(self, *arguments: Any, **settings: Any) -> list[str]:
            texts = tokenizer.batch_decode(*arguments, **settings)
            said.extend(texts)
            return texts  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Contender, "tokenizer", lambda self: Listening())
        scored = score_here(work, tiny_model(), first=0, stop=rows, on_rows=lambda count: None)
    return with_origins(scored.rows, inputs.dataset_url, index), said


def test_equally_long_conversations_have_their_own_language(answers: tuple[Answers, list[str]]) -> None:
    """Rows hold many documents of the same length and three languages; none is taken for another's."""
    found, said = answers
    names = [found.languages[number] for number in found.language]
    told = [(text[:2], name) for text, name in zip(said, names, strict=True)]
    assert sum(text == name for text, name in told) > 0.8 * len(told)
    assert {name for text, name in told if text != name} <= {UNKNOWN}


def test_answers_of_one_conversation_are_together(answers: tuple[Answers, list[str]]) -> None:
    """No conversation number stands for two conversations, and the parts of most that were cut have one number."""
    found, said = answers
    of_number: dict[int, set[str]] = {}
    of_name: dict[str, set[int]] = {}
    for text, number in zip(said, found.conversation.tolist(), strict=True):
        of_number.setdefault(number, set()).add(text.split()[1])
        of_name.setdefault(text.split()[1], set()).add(number)
    assert all(len(names) == 1 for names in of_number.values())
    cut = [numbers for name, numbers in of_name.items() if int(name) % 24 == 0]
    assert sum(len(numbers) == 1 for numbers in cut) > 0.5 * len(cut) > 0


def test_every_answer_of_the_split_is_there(
    prepared: tuple[Config, Prepared], answers: tuple[Answers, list[str]]
) -> None:
    """What is measured is all that was held out: as many answers as the provenance has turns, by two."""
    index = load_index(prepared[1].dataset_url)
    turns = sum(
        int(np.sum([row["turns"] for row in table.to_pylist() if row["split"] == "validation"]))
        for table in read_provenance(prepared[1].dataset_url, index)
    )
    assert len(answers[0].nll) == turns // 2
    assert answers[0].tokens.sum() == index.splits["validation"].supervised_tokens
