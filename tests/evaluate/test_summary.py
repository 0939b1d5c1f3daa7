"""What is shown of an evaluation: both models side by side, with what the figures rest on."""

from dataclasses import replace

import numpy as np
import orjson
from rich.console import Console

from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.perplexity import DocumentLosses
from scaletrain.evaluate.samples import Sample
from scaletrain.evaluate.summary import Evaluation, Trained

TRAINED = Trained(steps=16, samples=128, tokens=32768, supervised_tokens=15000, seconds=130.4)


def _measurement(*, nll: float, answer: str, corpora: tuple[str, ...] = ("chat",), step: int = 0) -> Measurement:
    subject = Subject(
        step=step,
        model="tiny-1234",
        checkpoint="f00d" if step else "",
        dataset_id="abc",
        rows=3,
        precision="fp32",
        prompts=("Hello!",),
        max_new_tokens=8,
        system_prompt=None,
    )
    losses = DocumentLosses(
        corpora=corpora, corpus=np.arange(4) % len(corpora), tokens=np.full(4, 1000), nll=np.full(4, nll * 1000)
    )
    return Measurement(subject, losses, (Sample("Hello!", answer),), "cpu", 1.0, "2026-01-01T00:00:00+00:00")


BEFORE = _measurement(nll=4.0, answer="As a model\nI greet you.")
AFTER = _measurement(nll=3.5, answer="hey whats up", step=16)
EVALUATION = Evaluation("chitchat", "abc", BEFORE, AFTER, TRAINED)


def _shown(evaluation: Evaluation) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(evaluation.display())
    return captured.get()


def test_before_after_and_change_stand_side_by_side() -> None:
    """One row shows both perplexities, the change in percent, and the tokens and documents behind them."""
    row = next(line for line in _shown(EVALUATION).splitlines() if "chat " in line and "54.60" in line)
    for part in ("54.60", "33.12", "-39.3%", "-39.3% to -39.3%", "4,000", "4 "):
        assert part in row


def test_the_table_fits_a_narrow_terminal() -> None:
    """No cell is folded on 80 columns."""
    with (console := Console(width=80)).capture() as captured:
        console.print(EVALUATION.display())
    assert sum("chat" in line or "54.60" in line for line in captured.get().splitlines()) == 2  # the title, the row


def test_a_single_corpus_is_shown_once() -> None:
    """The row of all corpora would say the same again."""
    assert "| all |" not in EVALUATION.markdown()
    two = {"corpora": ("chat", "news")}
    both = replace(
        EVALUATION, before=_measurement(nll=4.0, answer="", **two), after=_measurement(nll=3.0, answer="", **two)
    )
    assert "| all |" in both.markdown()


def test_answers_are_shown_before_and_after() -> None:
    """Each prompt comes with both answers, one line each."""
    page = EVALUATION.markdown()
    assert "> Hello!\n\n- **before**: As a model I greet you.\n- **after**: hey whats up\n" in page


def test_the_page_says_what_training_took() -> None:
    """Steps, tokens and time stand below the table."""
    assert "16 steps on 32,768 tokens (15,000 supervised) in 2 min 10 s" in EVALUATION.markdown()
    assert "16 steps" in _shown(EVALUATION)


def test_a_single_model_has_its_own_interval() -> None:
    """Before training there is one column, and the interval is that of the perplexity."""
    alone = replace(EVALUATION, after=None, trained=None)
    assert "The interval is that of the perplexity" in _shown(alone)
    assert "| corpus | before | 95% interval | tokens | documents |" in alone.markdown()


def test_the_record_is_plain_data() -> None:
    """--json gives figures and answers, without the losses of single documents."""
    record = orjson.loads(orjson.dumps(EVALUATION.record()))
    assert record["before"]["perplexities"][0]["tokens"] == 4000
    assert round(record["change"]["chat"]["value"], 3) == -0.393
    assert record["after"]["samples"] == [{"prompt": "Hello!", "reply": "hey whats up"}]
    assert record["trained"]["tokens"] == 32768
    assert len(orjson.dumps(record)) < 3000
