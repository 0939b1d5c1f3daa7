"""The log-probability of each document's answer: what preference training compares.

As in the training loss (loss.py), the output layer sees supervised tokens alone, and logits exist a chunk at a time.
How much each answer's gradient counts is known only once both answers of a pair are; so the logits are made a second
time for it, which costs one more pass through the output layer.

Shapes: B rows, T tokens of a row, M documents, N supervised tokens, n of them in a chunk, V words of the vocabulary, H
hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from scaletrain.model.attention import model_inputs
from scaletrain.model.loss import (
    IGNORED,
    LinearGradients,
    autocast_to,
    computing_dtype,
    ends_with_its_head,
    head_gives,
    head_sees,
    in_dtype,
    linear_chunks,
    losses_and_gradient,
    supervised_losses,
    supervised_positions,
)


class AnswerModel(nn.Module):
    """A causal language model whose forward gives the log-probabilities of answers; what DeepSpeed wraps.

    `causal_lm` is the model; `autocast` as LossModel has it.
    """

    def __init__(self, causal_lm: nn.Module, *, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.autocast = autocast

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        documents: torch.Tensor,
    ) -> torch.Tensor:
        """Return the log-probability of each document's supervised tokens, summed, in fp32 [M], row by row.

        All arguments have shape [B, T], as LossModel takes them. Documents are numbered from 1 in each row, without a
        gap, and each has a supervised token.
        """
        causal_lm: Any = self.causal_lm
        head = causal_lm.get_output_embeddings()
        where_N, targets_N = supervised_positions(labels, input_ids.device)
        lengths_M = answer_lengths(labels, documents).to(input_ids.device, non_blocking=True)
        inputs = model_inputs(causal_lm.config, input_ids, positions, documents)
        if ends_with_its_head(causal_lm):
            with autocast_to(self.autocast, input_ids), head_gives(linear_losses, head, where_N, targets_N):
                losses_N = causal_lm(**inputs).logits.reshape(-1)
        else:
            with autocast_to(self.autocast, input_ids), head_sees(head, where_N):
                losses_N = supervised_losses(causal_lm(**inputs).logits.squeeze(0), targets_N)
        # `unsafe` does without a look at the lengths, for which a GPU would have to be waited for.
        return -torch.segment_reduce(losses_N, "sum", lengths=lengths_M, unsafe=True)


def answer_lengths(labels_BT: torch.Tensor, documents_BT: torch.Tensor) -> torch.Tensor:
    """The number of supervised tokens of each document, int64 [M], on the device of the arguments."""
    per_row_B = documents_BT.amax(dim=1)
    first_B = per_row_B.cumsum(0) - per_row_B
    number_BT = first_B[:, None] + documents_BT - 1
    is_supervised_BT = labels_BT != IGNORED
    is_supervised_BT[:, 0] = False  # nothing stands before it
    return torch.bincount(number_BT[is_supervised_BT], minlength=int(per_row_B.sum()))


def linear_losses(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each row of a linear layer's logits, fp32 [N]. The logits never exist as a whole."""
    losses: Callable[..., torch.Tensor] = _LinearLosses.apply
    return losses(hidden_NH, weight_VH, bias_V, targets_N)


class _LinearLosses(torch.autograd.Function):
    """A linear layer and cross-entropy, chunk by chunk; the backward pass makes each chunk's logits again.

    The weight's gradient is added up over chunks in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
    ) -> torch.Tensor:
        dtype = ctx.dtype = computing_dtype(hidden_NH)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N)
        losses_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
        weight, bias = in_dtype(dtype, weight_VH, bias_V)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            for chunk, _, logits_nV in linear_chunks(hidden_NH, weight, bias):
                losses_N[chunk] = nn.functional.cross_entropy(logits_nV.float(), targets_N[chunk], reduction="none")
                del logits_nV  # before the next chunk's are made
        return losses_N

    @staticmethod
    def backward(ctx: Any, counts_N: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N = ctx.saved_tensors
        weight, bias = in_dtype(ctx.dtype, weight_VH, bias_V)
        gradients = LinearGradients(ctx.needs_input_grad[:3], hidden_NH, weight, bias)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            for chunk, hidden_nH, logits_nV in linear_chunks(hidden_NH, weight, bias):
                losses_and_gradient(logits_nV, targets_N[chunk])  # writes over the logits
                gradients.add(chunk, hidden_nH, logits_nV.mul_(counts_N[chunk, None]))
                del logits_nV
        return (
            gradients.hidden_NH,
            None if gradients.weight_VH is None else gradients.weight_VH.to(weight_VH.dtype),
            None if gradients.bias_V is None or bias_V is None else gradients.bias_V.to(bias_V.dtype),
            None,
        )
