"""What is shown of an evaluation: both models side by side, with what the figures rest on."""

from dataclasses import replace

import orjson
from measured import answers_of, measurement_of
from rich.console import Console

from scaletrain.evaluate.evaluation import Evaluation, Trained
from scaletrain.evaluate.measurement import Measurement
from scaletrain.evaluate.summary import display, markdown
from scaletrain.evaluate.tasks import TaskScore

TRAINED = Trained(steps=16, samples=128, tokens=32768, supervised_tokens=15000, seconds=130.4)


def _measurement(
    *,
    nll: float,
    answer: str,
    corpora: tuple[str, ...] = ("chat",),
    step: int = 0,
    languages: tuple[str, ...] = ("en",),
) -> Measurement:
    answers = answers_of(
        [1000] * 4,
        [nll * 1000] * 4,
        corpus=[number % len(corpora) for number in range(4)],
        language=[number % len(languages) for number in range(4)],
        corpora=corpora,
        languages=languages,
    )
    return measurement_of(answers, reply=answer, step=step, checkpoint="f00d" if step else "")


BEFORE = _measurement(nll=4.0, answer="As a model\nI greet you.")
AFTER = _measurement(nll=3.5, answer="hey whats up", step=16)
EVALUATION = Evaluation("chitchat", "abc", BEFORE, AFTER, TRAINED)


def _shown(evaluation: Evaluation, *, width: int = 120) -> str:
    with (console := Console(width=width)).capture() as captured:
        console.print(display(evaluation))
    return captured.get()


def test_before_after_and_change_stand_side_by_side() -> None:
    """One row shows both perplexities, the change in percent with its interval, bits per byte and conversations."""
    row = next(line for line in _shown(EVALUATION).splitlines() if "chat " in line and "54.60" in line)
    for part in ("54.60", "33.12", "-39.3%", "-39.3% to -39.3%", "1.262", "4 "):
        assert part in row


def test_the_table_fits_a_narrow_terminal() -> None:
    """No cell is folded on 80 columns."""
    lines = _shown(EVALUATION, width=80).splitlines()
    assert sum("chat" in line or "54.60" in line for line in lines) == 2  # the title, the row


def test_a_single_corpus_is_shown_once() -> None:
    """The row of all corpora would say the same again; several come with it, and so do languages."""
    assert "| all |" not in markdown(EVALUATION)
    assert "| language |" not in markdown(EVALUATION)
    two = {"corpora": ("chat", "news"), "languages": ("en", "fr")}
    both = replace(
        EVALUATION, before=_measurement(nll=4.0, answer="", **two), after=_measurement(nll=3.0, answer="", **two)
    )
    assert "| all |" in markdown(both)
    assert "| fr |" in markdown(both)


def test_answers_are_shown_before_and_after() -> None:
    """Each prompt comes with both answers, one line each."""
    page = markdown(EVALUATION)
    assert "> Hello!\n\n- **before**: As a model I greet you.\n- **after**: hey whats up\n" in page


def test_the_page_says_what_training_took() -> None:
    """Steps, tokens and time stand beside the figures that they bought, and how sure the change is."""
    page = markdown(EVALUATION)
    assert "Trained for 16 steps on 32,768 tokens (15,000 supervised) in 2 min 10 s." in page
    assert "Paired test of the change over all conversations: p = " in page
    assert "Expected calibration error of the next token: 0.233 before, 0.233 after." in page


def test_a_run_that_was_not_trained_has_one_column() -> None:
    """Without a checkpoint there is nothing to compare with."""
    page = markdown(Evaluation("chitchat", "abc", BEFORE, None, None))
    assert "| corpus | before | 95% interval | bits/byte | tokens | answers | conversations |" in page


def test_the_record_has_the_figures_for_scripts() -> None:
    """What --json prints has perplexities, changes by corpus and tasks, and is JSON."""
    scored = replace(EVALUATION, tasks=(("after", TaskScore("capitals", "acc", 0.5, 0.1, 20)),))
    record = orjson.loads(orjson.dumps(scored.record()))
    assert round(record["after"]["perplexities"][-1]["perplexity"], 2) == 33.12
    assert round(record["change"]["chat"]["value"], 3) == -0.393
    assert record["tasks"] == [
        {"model": "after", "task": "capitals", "metric": "acc", "value": 0.5, "standard_error": 0.1, "examples": 20}
    ]
    assert "| capitals | acc | 0.5000 ± 0.1000 | 20 |" in markdown(scored)


def test_another_run_is_named_where_it_is_compared_with() -> None:
    """A reader knows what "before" is."""
    other = replace(EVALUATION, before=measurement_of(BEFORE.answers, run="older", step=30, checkpoint="beef"))
    assert "before is older@30." in markdown(other)
    assert other.record()["against"] == "older@30"
