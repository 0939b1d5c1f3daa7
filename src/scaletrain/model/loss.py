"""The loss of chat training: cross-entropy summed over supervised tokens, computed at those tokens only.

About half the tokens of a conversation are supervised, and the output layer over a large vocabulary is a good part of a
small model's cost. So the output layer is given the hidden states of the supervised tokens alone; everything else
(scaling, soft caps, adapters, ZeRO-3's gathering) happens in the model's own forward. Its logits are turned into
gradients in place, a chunk at a time in fp32. Extra losses of mixture-of-experts routers are not added.

Shapes: B rows, T tokens of a row, N supervised tokens, V words of the vocabulary, H hidden size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scaletrain.model.attention import model_inputs

IGNORED = -100
_CHUNK_ELEMENTS = 2**25  # 128 MB of fp32 logits at a time


class LossModel(nn.Module):
    """A causal language model whose forward is the training loss; what DeepSpeed wraps. `causal_lm` is the model."""

    def __init__(self, causal_lm: nn.Module) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        documents: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss summed over supervised tokens, an fp32 scalar; all arguments have shape [B, T].

        `labels` stand beside the tokens they name (the shift is made here) and are -100 elsewhere. A micro batch
        without any still runs, and gives every trained parameter a gradient of zero, so that all ranks do the same.
        """
        losses_N, _ = _losses(self.causal_lm, input_ids, labels, positions, documents)
        return losses_N.sum()


@torch.no_grad()
def token_losses(
    causal_lm: nn.Module,
    *,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    positions: torch.Tensor,
    documents: torch.Tensor,
) -> torch.Tensor:
    """Return the loss of every token beside its label, fp32 [B, T]: zero where nothing is supervised."""
    losses_N, where_N = _losses(causal_lm, input_ids, labels, positions, documents)
    losses_BT = torch.zeros(labels.shape, dtype=torch.float32, device=losses_N.device)
    losses_BT.view(-1)[where_N + 1] = losses_N
    return losses_BT


def supervised_losses(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row, fp32 [N]. The logits' memory is used up: it holds their gradients afterwards."""
    cross_entropy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _CrossEntropy.apply
    return cross_entropy(logits_NV, targets_N)


def _losses(
    causal_lm: Any,
    input_ids_BT: torch.Tensor,
    labels_BT: torch.Tensor,
    positions_BT: torch.Tensor,
    documents_BT: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of the supervised tokens, and the flat index of the token before each."""
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    where_N = torch.nonzero(targets_BT.flatten() != IGNORED).squeeze(1)
    targets_N = targets_BT.flatten()[where_N]
    with _head_sees(causal_lm.get_output_embeddings(), where_N):
        inputs = model_inputs(causal_lm.config, input_ids_BT, positions_BT, documents_BT)
        logits_NV = causal_lm(**inputs).logits.squeeze(0)
    return supervised_losses(logits_NV, targets_N), where_N


@contextmanager
def _head_sees(head: nn.Module, where_N: torch.Tensor) -> Iterator[None]:
    """Give the output layer only the hidden states at these flat positions, as one row: [B, T, H] -> [1, N, H]."""

    def select(_module: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (hidden_BTH,) = arguments
        return (hidden_BTH.flatten(0, 1).index_select(0, where_N)[None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


class _CrossEntropy(torch.autograd.Function):
    """Softmax and cross-entropy in fp32, chunk by chunk; the backward's gradient takes the logits' place."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        rows = max(1, _CHUNK_ELEMENTS // logits_NV.shape[1])
        losses_N = torch.empty(targets_N.shape, dtype=torch.float32, device=logits_NV.device)
        needs_gradient = ctx.needs_input_grad[0]
        for start in range(0, len(targets_N), rows):
            chunk = slice(start, start + rows)
            targets_n1 = targets_N[chunk].long()[:, None]
            log_probs_nV = torch.log_softmax(logits_NV[chunk].float(), dim=-1)
            losses_N[chunk] = -log_probs_nV.gather(1, targets_n1).squeeze(1)
            if needs_gradient:
                gradient_nV = log_probs_nV.exp_()
                gradient_nV.scatter_add_(1, targets_n1, torch.full_like(targets_n1, -1, dtype=torch.float32))
                logits_NV[chunk] = gradient_nV
        if needs_gradient:
            ctx.save_for_backward(logits_NV)
        return losses_N

    @staticmethod
    def backward(ctx: Any, losses_gradient_N: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV.mul_(losses_gradient_N[:, None]), None
