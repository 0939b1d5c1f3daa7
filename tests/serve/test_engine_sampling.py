"""serve.engine_sampling: each row's token comes from the distribution that its own rules describe."""

import pytest
import torch
from transformers.generation.logits_process import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from scaletrain.serve.engine_sampling import Chooser, Chosen, choose
from scaletrain.serve.protocol import Sampled


def chooser(**settings: float | int | None) -> Chooser:
    """A chooser of tokens; random where nothing else is said."""
    return Chooser(Sampled(**{"max_tokens": 1, **settings}))  # type: ignore[arg-type]


def tokens(chosen: list[Chosen | None]) -> list[int]:
    """The tokens alone."""
    return [one.token for one in chosen if one is not None]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8), (1.5, 0.5), (5.0, 0.99), (0.01, 0.9)])
def test_tokens_come_as_often_as_transformers_says(temperature: float, top_p: float) -> None:
    """Over 20,000 draws the frequencies are the probabilities after transformers' own temperature and nucleus."""
    draws, vocabulary = 20_000, 600
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    steps = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)])
    expected = steps(torch.zeros(1, 1, dtype=torch.long), logits).softmax(-1)[0]
    one = chooser(temperature=temperature, top_p=top_p, seed=1)
    found = torch.cat([torch.tensor(tokens(choose(logits.expand(500, -1), [one] * 500))) for _ in range(draws // 500)])
    frequency = torch.bincount(found, minlength=vocabulary) / draws
    assert not frequency[expected == 0].any()
    sigma = (expected * (1 - expected) / draws).sqrt()
    assert bool(((frequency - expected).abs() <= 5 * sigma + 1e-3).all())


def test_each_row_follows_its_own_rules() -> None:
    """Greedy, random and narrowed rows stand side by side, and each is what it is alone."""
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(2))
    settings = [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_p": 0.3}, {"seed": 5, "temperature": 0.2}]
    together = tokens(choose(logits, [chooser(**each) for each in settings]))
    separate = [tokens(choose(logits[row : row + 1], [chooser(**each)]))[0] for row, each in enumerate(settings)]
    assert together == separate
    assert together[0] == int(logits[0].argmax())


def test_penalties_are_subtracted_from_tokens_of_the_answer() -> None:
    """Presence once, frequency for each time, as OpenAI's API describes them; reports show the model's own numbers."""
    logits = torch.tensor([[5.0, 4.9, 4.0, 0.0]])

    def after(*answer: int, **penalties: float) -> Chosen:
        one = chooser(temperature=0.0, logprobs=1, **penalties)
        for token in answer:
            one.count(token)
        chosen = choose(logits, [one])[0]
        assert chosen is not None
        return chosen

    assert after(0, presence_penalty=0.05).token == 0
    assert after(0, 0, presence_penalty=0.2).token == 1
    assert after(0, 0, 1, frequency_penalty=0.6).token == 1
    report = after(0, 0, 1, 1, frequency_penalty=0.6)
    assert report.token == 2
    assert report.logprob == pytest.approx(float(logits.log_softmax(-1)[0, 2]))
    assert report.top[0][0] == 0


def test_negative_penalties_invite_repetition() -> None:
    """OpenAI's API allows them down to -2."""
    one = chooser(temperature=0.0, presence_penalty=-2.0)
    one.count(3)
    assert tokens(choose(torch.tensor([[1.0, 0.5, 0.0, -0.5]]), [one])) == [3]


@pytest.mark.parametrize("temperature", [1e-300, 1e-8, 1e-3, 2.0])
def test_extreme_temperatures_stay_numbers(temperature: float) -> None:
    """A temperature next to 0 is greedy, not an overflow."""
    logits = torch.tensor([[-1e4, 30.0, 29.0, 1e4, 0.0]])
    assert tokens(choose(logits, [chooser(temperature=temperature, seed=0)])) == [3]


def test_tokens_that_the_model_rules_out_are_never_drawn() -> None:
    """A logit of minus infinity is a probability of 0."""
    logits = torch.full((1, 50), float("-inf"))
    logits[0, [7, 9]] = 0.0
    one = chooser(seed=0)
    assert {token for _ in range(50) for token in tokens(choose(logits, [one]))} == {7, 9}


def test_a_row_that_is_no_number_is_marked() -> None:
    """The rows beside it are not touched."""
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0]])
    assert choose(logits, [chooser(logprobs=1), chooser(temperature=0.0)]) == [None, Chosen(1)]
