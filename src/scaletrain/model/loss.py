"""The loss of chat training: cross-entropy summed over supervised tokens, computed at those tokens only.

About half the tokens of a conversation are supervised, and the output layer over a large vocabulary is a good part of a
small model's cost. So the output layer is given the hidden states of the supervised tokens alone; everything else
(scaling, soft caps, adapters, ZeRO-3's gathering) happens in the model's own forward. Where the model ends with a plain
linear layer, logits are made a chunk at a time and become gradients at once, so that they never exist as a whole (as in
Hsu et al. 2024, Liger, arXiv:2410.10989). Extra losses of mixture-of-experts routers are not added.

Shapes: B rows, T tokens of a row, N supervised tokens, n of them in a chunk, V words of the vocabulary, H hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from scaletrain.model.attention import model_inputs
from scaletrain.model.sequence_parallel import SequenceGroup

IGNORED = -100
_CHUNK_ELEMENTS = 2**25  # 128 MB of fp32 logits at a time on a CPU
_CUDA_CHUNK_ELEMENTS = 2**28  # 512 MB of bf16 logits: chunks large enough for full speed
_AFTER_THE_HEAD = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)


class LossModel(nn.Module):
    """A causal language model whose forward is the training loss; what DeepSpeed wraps. `causal_lm` is the model.

    Of a `group` of workers that share rows, each gets the whole rows, and the loss of its own part of their tokens. Of
    fp32 weights, products are computed in the type `autocast`: entered here, for DeepSpeed's engine ends any other.
    """

    def __init__(
        self, causal_lm: nn.Module, group: SequenceGroup | None = None, *, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.group = group
        self.autocast = autocast

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        documents: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss summed over supervised tokens, an fp32 scalar; all arguments have shape [B, T].

        `labels` stand beside the tokens they name (the shift is made here) and are -100 elsewhere. They and `documents`
        may lie on the CPU while the rest is on a GPU, which then need not be waited for. A micro batch without any
        supervised token still runs, and gives every trained parameter a gradient of zero: all ranks do the same.
        """
        causal_lm: Any = self.causal_lm
        head = causal_lm.get_output_embeddings()
        own = self.group.columns(input_ids.shape[1]) if self.group else slice(None)
        where_N, targets_N = supervised_positions(labels, input_ids.device, columns=own)
        inputs = model_inputs(causal_lm.config, input_ids[:, own], positions[:, own], documents)
        if ends_with_its_head(causal_lm):
            with autocast_to(self.autocast, input_ids), head_gives(linear_cross_entropy, head, where_N, targets_N):
                loss: torch.Tensor = causal_lm(**inputs).logits.reshape(())
            return loss
        with autocast_to(self.autocast, input_ids), head_sees(head, where_N):
            logits_NV = causal_lm(**inputs).logits.squeeze(0)
        return supervised_losses(logits_NV, targets_N).sum()


def supervised_losses(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row, fp32 [N]. Where there are gradients, they take the logits' memory."""
    cross_entropy: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _CrossEntropy.apply
    return cross_entropy(logits_NV, targets_N)


def linear_cross_entropy(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of a linear layer's logits, summed over rows: an fp32 scalar. The logits never exist as a whole."""
    cross_entropy: Callable[..., torch.Tensor] = _LinearCrossEntropy.apply
    if not torch.is_grad_enabled():
        # An autograd function is told what requires a gradient, but not that nobody will ask for one.
        hidden_NH, weight_VH = hidden_NH.detach(), weight_VH.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    return cross_entropy(hidden_NH, weight_VH, bias_V, targets_N)


def supervised_positions(
    labels_BT: torch.Tensor, device: torch.device, *, columns: slice = slice(None)
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flat index of the token before each supervised one, and that token: int64 [N] each, on the device.

    With `columns` those of a part of the rows, and indices into that part; the last token's target lies behind it.
    """
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    targets_BT = targets_BT[:, columns]
    where_N = torch.nonzero(targets_BT.flatten() != IGNORED).squeeze(1)
    found = torch.stack([where_N, targets_BT.flatten()[where_N].long()])
    if device.type == "cuda" and not found.is_cuda:
        found = found.pin_memory()
    where_N, targets_N = found.to(device, non_blocking=True)
    return where_N, targets_N


def ends_with_its_head(causal_lm: Any) -> bool:
    """Whether a model's logits are what its output layer gives, and that layer is a plain linear one."""
    changed = any(getattr(causal_lm.config, name, None) not in (None, 1, 1.0) for name in _AFTER_THE_HEAD)
    return type(causal_lm.get_output_embeddings()) is nn.Linear and not changed


@contextmanager
def head_sees(head: nn.Module, where_N: torch.Tensor) -> Iterator[None]:
    """Give the output layer only the hidden states at these flat positions, as one row: [B, T, H] -> [1, N, H]."""

    def select(_module: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (hidden_BTH,) = arguments
        return (hidden_BTH.flatten(0, 1).index_select(0, where_N)[None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def head_gives(
    loss: Callable[..., torch.Tensor], head: Any, where_N: torch.Tensor, targets_N: torch.Tensor
) -> Iterator[None]:
    """Have the output layer give a loss of its own logits, as [1, 1 or N, 1], so that ZeRO-3's hooks still surround it.

    `loss` takes hidden states [N, H], the layer's weight and bias, and targets, as linear_cross_entropy does.
    """

    def forward(hidden_BTH: torch.Tensor) -> torch.Tensor:
        hidden_NH = hidden_BTH.flatten(0, 1).index_select(0, where_N)
        return loss(hidden_NH, head.weight, head.bias, targets_N).view(1, -1, 1)

    before = head.forward
    head.forward = forward
    try:
        yield
    finally:
        head.forward = before


def autocast_to(dtype: torch.dtype | None, tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Compute products in a type on a tensor's device; in that of the weights where it is None."""
    return nullcontext() if dtype is None else torch.autocast(tensor.device.type, dtype)


def computing_dtype(tensor: torch.Tensor) -> torch.dtype:
    """In what a product with this tensor is computed: autocast's type, where there is one."""
    if torch.is_autocast_enabled(tensor.device.type):
        return torch.get_autocast_dtype(tensor.device.type)
    return tensor.dtype


def in_dtype(
    dtype: torch.dtype, weight_VH: torch.Tensor, bias_V: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A linear layer's weight and bias, as they are computed with."""
    return weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)


class _CrossEntropy(torch.autograd.Function):
    """Softmax and cross-entropy in fp32, chunk by chunk; the backward's gradient takes the logits' place."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        losses_N = torch.empty(targets_N.shape, dtype=torch.float32, device=logits_NV.device)
        for chunk in row_chunks(len(logits_NV), logits_NV.shape[1], logits_NV.device):
            logits_nV, targets_n = logits_NV[chunk], targets_N[chunk].long()
            if ctx.needs_input_grad[0]:
                losses_N[chunk] = losses_and_gradient(logits_nV, targets_n)
            else:
                losses_N[chunk] = nn.functional.cross_entropy(logits_nV.float(), targets_n, reduction="none")
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(logits_NV)
        return losses_N

    @staticmethod
    def backward(ctx: Any, losses_gradient_N: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV.mul_(losses_gradient_N[:, None]), None


class _LinearCrossEntropy(torch.autograd.Function):
    """A linear layer and cross-entropy, chunk by chunk, all gradients made in the forward pass.

    The weight's gradient is added up over chunks in fp32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None, targets_N: torch.Tensor
    ) -> torch.Tensor:
        weight, bias = in_dtype(computing_dtype(hidden_NH), weight_VH, bias_V)
        gradients = LinearGradients(ctx.needs_input_grad[:3], hidden_NH, weight, bias)
        losses_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            for chunk, hidden_nH, logits_nV in linear_chunks(hidden_NH, weight, bias):
                losses_N[chunk] = losses_and_gradient(logits_nV, targets_N[chunk])
                gradients.add(chunk, hidden_nH, logits_nV)
                del logits_nV  # before the next chunk's are made
        ctx.save_for_backward(gradients.hidden_NH, gradients.weight_VH, gradients.bias_V)
        ctx.dtype = weight_VH.dtype
        return losses_N.sum()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient_NH, gradient_VH, gradient_V = ctx.saved_tensors
        return (
            None if gradient_NH is None else gradient_NH.mul_(gradient),
            None if gradient_VH is None else gradient_VH.mul_(gradient).to(ctx.dtype),
            None if gradient_V is None else gradient_V.mul_(gradient).to(ctx.dtype),
            None,
        )


class LinearGradients:
    """Gradients of a linear layer by its input, weight and bias, made a chunk of rows at a time.

    Those of weight and bias are added up in fp32. What `needs` (input, weight, bias) says no to stays None.
    """

    def __init__(
        self, needs: Sequence[bool], hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None
    ) -> None:
        needs_hidden, needs_weight, needs_bias = needs
        self._weight_VH = weight_VH
        self.hidden_NH = torch.empty_like(hidden_NH) if needs_hidden else None
        self.weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32) if needs_weight else None
        self.bias_V = None if bias_V is None or not needs_bias else torch.zeros_like(bias_V, dtype=torch.float32)

    def add(self, chunk: slice, hidden_nH: torch.Tensor, gradient_nV: torch.Tensor) -> None:
        """Take in the gradient by a chunk's logits; `hidden_nH` is what they were computed of. All have one dtype."""
        if self.hidden_NH is not None:
            self.hidden_NH[chunk] = gradient_nV @ self._weight_VH
        if self.weight_VH is not None:
            self.weight_VH += gradient_nV.T @ hidden_nH
        if self.bias_V is not None:
            self.bias_V += gradient_nV.sum(0, dtype=torch.float32)


def linear_chunks(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield a chunk of rows at a time: where it is, its hidden states [n, H] and its logits [n, V], in weight's dtype.

    Nothing here keeps the logits, so that whoever lets go of them has no more than one chunk's.
    """
    for chunk in row_chunks(len(hidden_NH), len(weight_VH), hidden_NH.device):
        hidden_nH = hidden_NH[chunk].to(weight_VH.dtype)
        yield chunk, hidden_nH, nn.functional.linear(hidden_nH, weight_VH, bias_V)


def row_chunks(rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Cut a table of logits into rows that may exist at the same time."""
    elements = _CUDA_CHUNK_ELEMENTS if device.type == "cuda" else _CHUNK_ELEMENTS
    at_once = max(1, elements // columns)
    for start in range(0, rows, at_once):
        yield slice(start, start + at_once)


def losses_and_gradient(logits_nV: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each row, fp32 [n], and write the gradient over the logits."""
    compute = _compiled_cross_entropy() if logits_nV.is_cuda else _cross_entropy
    return compute(logits_nV, targets_n)


def _cross_entropy(logits_nV: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
    """Softmax in fp32; written so that a compiler makes two passes over the logits of it, without copies in fp32."""
    log_probs_nV = torch.log_softmax(logits_nV.float(), dim=-1)
    losses_n = -log_probs_nV.gather(1, targets_n[:, None]).squeeze(1)
    is_target_nV = torch.arange(logits_nV.shape[1], device=logits_nV.device) == targets_n[:, None]
    logits_nV.copy_(log_probs_nV.exp() - is_target_nV.float())
    return losses_n


@lru_cache
def _compiled_cross_entropy() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return torch.compile(_cross_entropy, dynamic=True)
