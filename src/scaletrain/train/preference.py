"""The loss of preference training, from the log-probabilities of answers; and what its pairs are counted for.

Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7). A reward is beta times how much the
log-probability of an answer has grown since training began; the loss is the logistic loss of the margin between the
rewards of a pair's two answers. With label smoothing a share of the pairs is taken to be the wrong way round
(conservative DPO: https://ericmitchell.ai/cdpo.pdf).

Shapes: M documents, the two of each pair side by side, P pairs.
"""

import torch
from torch.nn.functional import logsigmoid

from scaletrain.config_dpo import DpoSection

SUMS = 3  # what `pair_sums` gives: loss, margin, pairs that have the preferred answer ahead


def pair_sums(log_probs_M: torch.Tensor, reference_M: torch.Tensor, section: DpoSection) -> torch.Tensor:
    """Sum over pairs, in fp32 [3]: the loss (with gradients), the margin of rewards, and the pairs with one above 0."""
    margins_P = reward_margins(log_probs_M, reference_M, beta=section.beta)
    losses_P = pair_losses(margins_P, label_smoothing=section.label_smoothing)
    seen_P = margins_P.detach()
    return torch.stack([losses_P.sum(), seen_P.sum(), (seen_P > 0).float().sum()])


def reward_margins(log_probs_M: torch.Tensor, reference_M: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The reward of each pair's preferred answer less that of the other one, [P]."""
    rewards_M = beta * (log_probs_M - reference_M)
    return rewards_M[0::2] - rewards_M[1::2]


def pair_losses(margins_P: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
    """The loss of each pair, [P]."""
    return -(1 - label_smoothing) * logsigmoid(margins_P) - label_smoothing * logsigmoid(-margins_P)
