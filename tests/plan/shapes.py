"""Shapes of known models, as their config.json gives them, and ways to train them."""

from typing import Any

from scaletrain.model.shape import ModelShape, Parameter, shape_of

LLAMA_70B: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}


def llama(vocab: int, hidden: int, wide: int, layers: int, heads: int, kv_heads: int, head: int) -> ModelShape:
    """A Llama with tied embeddings."""
    return shape_of(
        {
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": wide,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head,
            "tie_word_embeddings": True,
        }
    )


def one_matrix(numel: int) -> tuple[Parameter, ...]:
    """A model as papers count it: so many parameters, whatever they are."""
    return (Parameter("weights", (numel // 1000, 1000)),)
