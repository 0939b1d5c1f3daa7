"""Which tokens see which in packed rows: earlier ones of the same document, in the sliding window if there is one.

Three ways to the same result: a dense mask (SDPA), a block mask (flex attention), and kernels that are told where
documents begin and so compute nothing outside them (variable-length attention: Dao 2023, arXiv:2307.08691).

Shapes: B rows, T tokens of a row, H heads, D size of a head, M documents.
"""

import inspect
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from scaletrain.errors import ModelError
from scaletrain.model.sequence_parallel import SHARED

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedConfig

    Mask = torch.Tensor | BlockMask

VARLEN = "scaletrain_varlen"  # as transformers knows it
_FULL = "full_attention"
SLIDING = "sliding_attention"


def model_inputs(
    config: "PreTrainedConfig", input_ids_BT: torch.Tensor, positions_BT: torch.Tensor, documents_BT: torch.Tensor
) -> dict[str, Any]:
    """Keyword arguments for the forward() of a model with this configuration, so that no document sees another.

    `documents_BT` numbers the documents of each row; padding is 0 and sees only padding, so that its softmax is
    finite. It may lie on the CPU while the rest is on a GPU: variable-length attention is then set up without waiting
    for the GPU. Where workers share rows it is that of whole rows, and the rest is this worker's part.
    """
    inputs = {"input_ids": input_ids_BT, "position_ids": positions_BT, "use_cache": False}
    if _kernel(config) == VARLEN:
        bounds, longest = document_bounds(documents_BT)
        bounds = bounds.to(input_ids_BT.device, non_blocking=True)
        spans = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
        return {**inputs, "attention_mask": None, **spans}
    return {**inputs, "attention_mask": document_masks(config, documents_BT.to(input_ids_BT.device))}


def document_bounds(documents_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where documents begin in the flattened rows, and the end: int32 [M + 1]; and the longest one's tokens.

    A row's padding counts as one document more.
    """
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    begins = torch.nonzero(begins_BT.flatten()).squeeze(1)
    bounds = torch.cat([begins, begins.new_tensor([documents_BT.numel()])]).to(torch.int32)
    bounds = bounds.pin_memory() if torch.cuda.is_available() and not bounds.is_cuda else bounds
    return bounds, int(bounds.diff().max())


def document_masks(config: "PreTrainedConfig", documents_BT: torch.Tensor) -> "Mask | dict[str, Mask]":
    """The mask of every layer, or one for each kind of layer where they differ (as in Gemma 3)."""
    build = _block_mask if _kernel(config) == "flex_attention" else _dense_mask
    window = getattr(config, "sliding_window", None)
    kinds = layer_kinds(config)
    if not kinds:
        return build(documents_BT, window)
    masks = {kind: build(documents_BT, window if kind == SLIDING else None) for kind in kinds}
    return masks if len(masks) > 1 else masks.popitem()[1]


def _kernel(config: "PreTrainedConfig") -> str:
    """What computes attention, also where workers share rows around it."""
    return str(config._attn_implementation).removeprefix(SHARED)


def layer_kinds(config: "PreTrainedConfig") -> frozenset[str]:
    """The kinds of attention in a model, where its configuration tells layers apart."""
    return frozenset(getattr(config, "layer_types", None) or ())


def check_separable(config: "PreTrainedConfig", source: str) -> None:
    """Raise ModelError for a model whose layers a mask cannot keep from mixing packed documents."""
    mixing = layer_kinds(config) - {_FULL, SLIDING}
    if mixing:
        raise ModelError(
            f"{source} has layers of {', '.join(sorted(mixing))}, through which packed documents would see each other; "
            "use a model with full or sliding attention"
        )


def varlen_available() -> bool:
    """Whether this torch has variable-length attention with a scale and a window (2.11 and newer)."""
    return {"scale", "window_size"} <= _varlen_parameters()


def register_varlen() -> None:
    """Make variable-length attention known to transformers, under the name VARLEN."""
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, attend_documents)


def attend_documents(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within documents only, in the form of transformers' attention functions; returns [B, T, H, D].

    Keys and values may have fewer heads than queries (K divides H). On a CPU documents are computed one by one. Raises
    ModelError where a model's layers ask for more, or do not hand on where documents begin.
    """
    if cu_seq_lens_q is None or s_aux is not None or softcap is not None:
        raise ModelError(
            f"variable-length attention cannot compute {type(module).__name__}, which has attention sinks or soft "
            "caps, or does not hand on where documents begin; use model.attention: flex, or sdpa"
        )
    rows, heads, length, size = query_BHTD.shape
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query_BHTD, key_BKTD, value_BKTD))
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        options: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in _varlen_parameters() else {}
        options |= {"scale": scaling, "window_size": (-1 if sliding_window is None else sliding_window - 1, 0)}
        bounds, longest = cu_seq_lens_q, max_length_q
        out: Any = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
    else:
        out = _attend_one_by_one(query, key, value, cu_seq_lens_q.tolist(), scaling, sliding_window)
    return out.view(rows, length, heads, size), None


def _attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: list[int],
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """The same as torch's kernels for CUDA, for tensors [tokens, heads, D]."""
    found = []
    for start, stop in pairwise(bounds):
        of_query, of_key, of_value = (each[start:stop].transpose(0, 1)[None] for each in (query, key, value))
        index = torch.arange(stop - start)
        distance = index[:, None] - index[None, :]
        sees = None if window is None else (distance >= 0) & (distance < window)
        out = torch.nn.functional.scaled_dot_product_attention(
            of_query, of_key, of_value, attn_mask=sees, is_causal=sees is None, scale=scale, enable_gqa=True
        )
        found.append(out[0].transpose(0, 1))
    return torch.cat(found)


@lru_cache
def _varlen_parameters() -> frozenset[str]:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _dense_mask(documents_BT: torch.Tensor, window: int | None) -> torch.Tensor:
    """True where a query may look, shape [B, 1, T, T]."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    distance_TT = index_T[:, None] - index_T[None, :]
    visible_TT = distance_TT >= 0
    if window is not None:
        visible_TT &= distance_TT < window
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return (same_BTT & visible_TT)[:, None]


def _block_mask(documents_BT: torch.Tensor, window: int | None) -> "BlockMask":
    """The same as blocks to skip or to visit (Dong et al. 2024, arXiv:2412.05496)."""
    from torch.nn.attention.flex_attention import create_block_mask

    def may_look(row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        visible = (query >= key) & (documents_BT[row, query] == documents_BT[row, key])
        return visible if window is None else visible & (query - key < window)

    rows, length = documents_BT.shape
    device = documents_BT.device
    return create_block_mask(may_look, rows, None, length, length, device=device, _compile=documents_BT.is_cuda)
