"""The next token of every answer in a step, each by its own rules: penalties, temperature, nucleus, seed.

The order is that of the OpenAI API and of vLLM: penalties, then temperature, then top_p; log-probabilities are the
model's own, before all of these. R: answers that get a token; V: the vocabulary; N: its likeliest tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from scaletrain.serve.protocol import Sampled

_NUCLEUS_TOKENS = 256
_COLDEST = 1e-5  # below it is greedy, as in vLLM: fp32 would make 0 of the smallest temperatures


@dataclass(frozen=True)
class Chosen:
    """A token; where it was asked for, its log-probability and those of the likeliest tokens in its place."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """The rules of one answer, and what they need to remember: its random numbers and the tokens it has.

    Random numbers are drawn one a token, on the CPU: those of a seed are the same on every device and beside any other
    answers.
    """

    def __init__(self, sampled: Sampled) -> None:
        self.sampled = sampled
        self._counts: dict[int, int] = {}
        self._generator = torch.Generator()
        if sampled.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampled.seed % 2**63)

    def count(self, token: int) -> None:
        """Remember that the answer has this token."""
        if self.sampled.presence_penalty or self.sampled.frequency_penalty:
            self._counts[token] = self._counts.get(token, 0) + 1

    def penalise(self, scores_V: torch.Tensor) -> None:
        """Subtract the penalties from the scores of tokens that the answer has, in place."""
        if not self._counts:
            return
        tokens = torch.tensor(list(self._counts), device=scores_V.device)
        counts = torch.tensor(list(self._counts.values()), device=scores_V.device, dtype=scores_V.dtype)
        scores_V[tokens] -= self.sampled.presence_penalty + self.sampled.frequency_penalty * counts

    def draw(self) -> float:
        """The next random number, from 0 to below 1."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def choose(logits_RV: torch.Tensor, choosers: Sequence[Chooser]) -> list[Chosen | None]:
    """The next token of each answer; None where the model gave something that is not a number."""
    logits_RV = logits_RV.float()
    sound = (~logits_RV.isnan().any(-1)).tolist()
    scores_RV = logits_RV.clone()
    for row, chooser in enumerate(choosers):
        chooser.penalise(scores_RV[row])
    tokens = scores_RV.argmax(-1)
    random = [row for row, chooser in enumerate(choosers) if chooser.sampled.temperature >= _COLDEST and sound[row]]
    if random:
        tokens[random] = _drawn(scores_RV[random], [choosers[row] for row in random])
    chosen: list[Chosen | None] = [Chosen(token) for token in tokens.tolist()]
    reported = [row for row, chooser in enumerate(choosers) if chooser.sampled.logprobs is not None and sound[row]]
    if reported:
        tops = [choosers[row].sampled.logprobs or 0 for row in reported]
        for row, report in zip(reported, _reports(logits_RV[reported], tokens[reported], tops), strict=True):
            chosen[row] = report
    return [one if good else None for one, good in zip(chosen, sound, strict=True)]


def _drawn(scores_RV: torch.Tensor, choosers: Sequence[Chooser]) -> torch.Tensor:
    """A token for each row, by the inverse of the distribution function.

    The tokens stay in the vocabulary's order: where another batch changes the last bits of the scores, the bounds move
    by as little, whereas the order of nearly equal tokens could change.
    """
    device = scores_RV.device
    temperature_R1 = torch.tensor([[chooser.sampled.temperature] for chooser in choosers], device=device)
    # The largest is subtracted first: a tiny temperature then makes the others vanish instead of overflow.
    probabilities_RV = ((scores_RV - scores_RV.amax(-1, keepdim=True)) / temperature_R1).softmax(-1)
    narrowed = [row for row, chooser in enumerate(choosers) if chooser.sampled.top_p < 1]
    if narrowed:
        shares = torch.tensor([[choosers[row].sampled.top_p] for row in narrowed], device=device)
        probabilities_RV[narrowed] = _nucleus(probabilities_RV[narrowed], shares)
    bounds_RV = probabilities_RV.double().cumsum(-1)
    numbers_R1 = torch.tensor([[chooser.draw()] for chooser in choosers], device=device, dtype=torch.float64)
    drawn_R1 = torch.searchsorted(bounds_RV, numbers_R1 * bounds_RV[:, -1:], right=True)
    return drawn_R1[:, 0].clamp(max=scores_RV.shape[-1] - 1)


def _nucleus(probabilities_RV: torch.Tensor, share_R1: torch.Tensor) -> torch.Tensor:
    """The smallest set of likeliest tokens whose probabilities reach a share; the others get 0.

    Sorting a vocabulary takes longer than all else here, and a nucleus is small: so the likeliest 256 are looked at
    first, and all are sorted only in rows where these do not reach.
    """
    values_RN, indices_RN = probabilities_RV.topk(min(_NUCLEUS_TOKENS, probabilities_RV.shape[-1]))
    kept_RV = _kept(probabilities_RV, share_R1, values_RN, indices_RN)
    wide_R = (values_RN.sum(-1, keepdim=True) < share_R1)[:, 0]
    if bool(wide_R.any()):
        wide_RV = probabilities_RV[wide_R]
        kept_RV[wide_R] = _kept(wide_RV, share_R1[wide_R], *wide_RV.sort(descending=True))
    return kept_RV


def _kept(
    probabilities_RV: torch.Tensor, share_R1: torch.Tensor, values_RN: torch.Tensor, indices_RN: torch.Tensor
) -> torch.Tensor:
    """Those of the likeliest tokens before which a share is not reached, at their places in the vocabulary."""
    before_RN = values_RN.cumsum(-1) - values_RN
    return torch.zeros_like(probabilities_RV).scatter(-1, indices_RN, values_RN.where(before_RN < share_R1, 0))


def _reports(logits_RV: torch.Tensor, tokens_R: torch.Tensor, tops: Sequence[int]) -> list[Chosen]:
    logprobs_RV = logits_RV.log_softmax(-1)
    own = logprobs_RV.gather(-1, tokens_R[:, None])[:, 0].tolist()
    likeliest = logprobs_RV.topk(min(max(tops), logprobs_RV.shape[-1]))
    indices, values = likeliest.indices.tolist(), likeliest.values.tolist()
    return [
        Chosen(token, own[row], tuple(zip(indices[row][:top], values[row][:top], strict=True)))
        for row, (token, top) in enumerate(zip(tokens_R.tolist(), tops, strict=True))
    ]
