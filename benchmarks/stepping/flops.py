"""The floating-point operations that a training step cannot do without: what MFU counts.

n tokens, s of them supervised, documents of t tokens; a model of L layers, H wide, with V words, attention A wide
(heads times their size) and W weights in the matrices of its layers. Twice the multiplications: forward, with respect
to the input, and with respect to the weight (Kaplan et al. 2020, arXiv:2001.08361, section 2.1; PaLM, arXiv:2204.02311,
appendix B):

    all weights trained     6 W n + 6 H V s + 6 L A sum(t^2)
    LoRA, a weights each    4 W n + 4 H V s + 6 L A sum(t^2) + 6 a n, less what flows to the first layer's input

Attention is causal and within documents, so half of each t x t square. The output layer counts where there is a loss,
at supervised tokens; embeddings, padding and recomputing count nothing. A frozen matrix has no gradient of its own,
hence 4 for 6; and below the first layer nothing is trained, so its queries, keys and values pass no gradient on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FORMULA = (
    "MFU: FLOPs by seconds, by the device's dense bf16 peak. FLOPs are those that these documents need, forward and "
    "backward: 6 W n + 6 H V s + 6 L A Σt², for n tokens, s of them supervised, in documents of t; L layers of width H "
    "with W weights in all, V words, attention of width A. With LoRA 4 W n + 4 H V s + 6 L A Σt² + 6 a n for adapters "
    "of a weights, less what would flow below the first layer. Nothing for padding, for recomputing, for the output "
    "layer at tokens without a loss, or for attention between documents (benchmarks/stepping/flops.py)."
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama, as its model card gives them; `tied`: the output layer is the embedding."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tied: bool = True

    @property
    def attention_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def linear_layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of a layer's matrices: queries, keys, values; output; gate, up, down."""
        hidden, keys = self.hidden_size, self.num_key_value_heads * self.head_dim
        into_attention = ((hidden, self.attention_size), (hidden, keys), (hidden, keys))
        inner = self.intermediate_size
        return (*into_attention, (self.attention_size, hidden), (hidden, inner), (hidden, inner), (inner, hidden))

    @property
    def parameters(self) -> int:
        """All weights, norms among them."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        matrices = sum(inputs * outputs for inputs, outputs in self.linear_layers)
        return embeddings + self.num_hidden_layers * (matrices + 2 * self.hidden_size) + self.hidden_size


SHAPES = {
    "tiny": Shape(49152, 64, 256, 2, 4, 2, 16),
    "0.135B": Shape(49152, 576, 1536, 30, 9, 3, 64),  # SmolLM2-135M
    "1B": Shape(128256, 2048, 8192, 16, 32, 8, 64),  # Llama-3.2-1B
    "3B": Shape(128256, 3072, 8192, 28, 24, 8, 128),  # Llama-3.2-3B
    "8B": Shape(128256, 4096, 14336, 32, 32, 8, 128, tied=False),  # Llama-3.1-8B
}


def step_flops(lengths: Sequence[int], supervised: int, shape: Shape, *, lora_rank: int = 0) -> float:
    """FLOPs of a step over documents of these lengths; `lora_rank` 0 where all weights are trained."""
    layers, tokens = shape.num_hidden_layers, float(sum(lengths))
    squares = float(np.square(np.asarray(lengths, dtype=np.float64)).sum())
    matrices = sum(inputs * outputs for inputs, outputs in shape.linear_layers)
    head = shape.hidden_size * shape.vocab_size
    attention = 6 * layers * shape.attention_size * squares
    if not lora_rank:
        return 6 * layers * matrices * tokens + 6 * head * supervised + attention
    adapters = sum(lora_rank * (inputs + outputs) for inputs, outputs in shape.linear_layers)
    below = sum(inputs * (outputs + lora_rank) for inputs, outputs in shape.linear_layers[:3])
    each_token = layers * (4 * matrices + 6 * adapters) - 2 * below
    return each_token * tokens + 4 * head * supervised + attention
