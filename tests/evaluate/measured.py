"""Measurements made up for tests: answers with chosen losses, and what stands around them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scaletrain.evaluate.answers import Answers
from scaletrain.evaluate.calibration import calibration
from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.samples import Sample

SUBJECT = Subject(
    run="",
    step=0,
    model="tiny-1234",
    checkpoint="",
    dataset_id="abc",
    rows=3,
    precision="fp32",
    prompts=("Hello!",),
    max_new_tokens=8,
    system_prompt=None,
    texts=(),
    context=0,
    stride=0,
)


def answers_of(
    tokens: Sequence[int],
    nll: Sequence[float],
    *,
    conversation: Sequence[int] | None = None,
    corpus: Sequence[int] | None = None,
    language: Sequence[int] | None = None,
    depth: Sequence[int] | None = None,
    corpora: tuple[str, ...] = ("chat", "news"),
    languages: tuple[str, ...] = ("en", "fr"),
) -> Answers:
    """Answers with these losses; four bytes a token, and each a conversation of its own if nothing else is said."""
    count = len(tokens)
    return Answers(
        corpora=corpora,
        languages=languages,
        conversation=np.array(range(count) if conversation is None else conversation),
        corpus=np.array([0] * count if corpus is None else corpus),
        language=np.array([0] * count if language is None else language),
        depth=np.array([1] * count if depth is None else depth),
        tokens=np.array(tokens),
        size_bytes=4 * np.array(tokens),
        nll=np.array(nll, dtype=np.float64),
    )


def measurement_of(answers: Answers, *, reply: str = "Hi.", **subject: Any) -> Measurement:
    """A measurement of these answers, with one sample."""
    return Measurement(
        subject=Subject(**{**vars(SUBJECT), **subject}),
        answers=answers,
        calibration=calibration(np.array([0.1, 0.5, 0.9]), np.array([False, True, True])),
        texts=(),
        samples=(Sample("Hello!", reply, tokens=3, ended=True),),
        device="cpu",
        seconds=1.5,
        time="2026-01-01T00:00:00+00:00",
    )
