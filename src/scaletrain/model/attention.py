"""Which tokens see which in packed rows: earlier ones of the same document, in the sliding window if there is one.

Shapes: B rows, T tokens of a row.
"""

from typing import TYPE_CHECKING, Any

import torch

from scaletrain.errors import ModelError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedConfig

    Mask = torch.Tensor | BlockMask

_FULL = "full_attention"
_SLIDING = "sliding_attention"


def model_inputs(
    config: "PreTrainedConfig", input_ids_BT: torch.Tensor, positions_BT: torch.Tensor, documents_BT: torch.Tensor
) -> dict[str, Any]:
    """Keyword arguments for the forward() of a model with this configuration, so that no document sees another.

    `documents_BT` numbers the documents of each row; padding is 0 and sees only itself, so that its softmax is finite.
    """
    return {
        "input_ids": input_ids_BT,
        "position_ids": positions_BT,
        "attention_mask": document_masks(config, documents_BT),
        "use_cache": False,
    }


def document_masks(config: "PreTrainedConfig", documents_BT: torch.Tensor) -> "Mask | dict[str, Mask]":
    """The mask of every layer, or one for each kind of layer where they differ (as in Gemma 3)."""
    build = _block_mask if config._attn_implementation == "flex_attention" else _dense_mask
    window = getattr(config, "sliding_window", None)
    kinds = layer_kinds(config)
    if not kinds:
        return build(documents_BT, window)
    masks = {kind: build(documents_BT, window if kind == _SLIDING else None) for kind in kinds}
    return masks if len(masks) > 1 else masks.popitem()[1]


def layer_kinds(config: "PreTrainedConfig") -> frozenset[str]:
    """The kinds of attention in a model, where its configuration tells layers apart."""
    return frozenset(getattr(config, "layer_types", None) or ())


def check_separable(config: "PreTrainedConfig", source: str) -> None:
    """Raise ModelError for a model whose layers a mask cannot keep from mixing packed documents."""
    mixing = layer_kinds(config) - {_FULL, _SLIDING}
    if mixing:
        raise ModelError(
            f"{source} has layers of {', '.join(sorted(mixing))}, through which packed documents would see each other; "
            "use a model with full or sliding attention"
        )


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
