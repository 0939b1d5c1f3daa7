"""The configuration of the model: where it comes from, its shape, adapters, and how its layers compute."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from scaletrain.config_recomputing import RecomputingField
from scaletrain.config_section import Count, Fraction, Positive, Section

SMALLEST_VOCABULARY = 256 + 3  # every byte, and the special tokens of a tokenizer that is trained here


class ModelSize(Section):
    """The shape of a model that is trained from nothing (a Llama decoder)."""

    vocab_size: Count = Field(2048, description="tokens of the tokenizer that is trained on the corpora")
    hidden_size: Count = Field(128, description="width of the residual stream")
    num_layers: Count = Field(2, description="decoder layers")
    num_heads: Count = Field(4, description="attention heads; must divide hidden_size")
    num_kv_heads: Count | None = Field(None, description="grouped-query attention; num_heads by default")
    intermediate_size: Count | None = Field(None, description="8/3 of hidden_size by default, rounded up to 32")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.vocab_size < SMALLEST_VOCABULARY:
            yield (
                "vocab_size",
                f"got {self.vocab_size}, which does not hold the 256 bytes; use {SMALLEST_VOCABULARY} or more",
            )
        if self.hidden_size % self.num_heads:
            use = nearest_divisor(self.hidden_size, self.num_heads)
            yield "num_heads", f"got {self.num_heads}, which does not divide hidden_size={self.hidden_size}; use {use}"
        elif self.hidden_size // self.num_heads % 2:
            yield (
                "hidden_size",
                f"got {self.hidden_size}, which makes {self.num_heads} heads of {self.hidden_size // self.num_heads}, "
                f"an odd size, and rotary positions turn pairs; use {self.hidden_size + self.num_heads}",
            )
        if self.num_kv_heads and self.num_heads % self.num_kv_heads:
            use = nearest_divisor(self.num_heads, self.num_kv_heads)
            yield (
                "num_kv_heads",
                f"got {self.num_kv_heads}, which does not divide num_heads={self.num_heads}; use {use}",
            )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of a number that is nearest to what was wanted: for errors that say what to use."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return min((*small, *(number // n for n in small)), key=lambda n: abs(n - wanted))


def _modules_kind(value: object) -> str:
    return "<name>" if isinstance(value, str) else "<list>"


class LoraSection(Section):
    """Low-rank adapters instead of full fine-tuning (Hu et al. 2021, arXiv:2106.09685)."""

    rank: Count = Field(16, description="inner dimension of the adapters: more learns more, and costs more")
    alpha: Positive = Field(32.0, description="the adapters are scaled by alpha / rank")
    dropout: Fraction = Field(0.0, description="on the adapters' input, in training")
    target_modules: Annotated[
        Annotated[tuple[str, ...], Tag("<list>")] | Annotated[Literal["all-linear"], Tag("<name>")],
        Discriminator(_modules_kind),
    ] = Field("all-linear", description="all-linear, or a list of module names")
    quantization: Literal["none", "nf4"] = Field(
        "none",
        description="of the frozen linear layers; nf4: 4 bits a weight (QLoRA; bitsandbytes), zero.stage 0 to 2",
    )


def quantizes(lora: LoraSection | None) -> bool:
    """Whether the frozen weights below the adapters are kept in 4 bits."""
    return lora is not None and lora.quantization != "none"


class ModelSection(Section):
    """The model that training starts from."""

    init: Literal["pretrained", "random"] = Field("pretrained", description="random: from nothing, with size")
    source: str | None = Field(None, description="a folder, an fsspec URL, a GGUF file or a Hugging Face id")
    revision: str | None = Field(None, description="of a Hugging Face id: branch, tag or commit")
    size: ModelSize | None = Field(None, description="with init: random")
    lora: LoraSection | None = Field(None, description="train adapters instead of all weights; {} for the defaults")
    attention: Literal["auto", "sdpa", "flex", "varlen"] = Field(
        "auto", description="auto: on CUDA varlen in bf16, else flex; SDPA on CPU"
    )
    kernels: Literal["auto", "liger", "compile", "plain"] = Field(
        "auto", description="of layers; auto: compiled on CUDA, Liger's with ZeRO-3 where installed"
    )
    gradient_checkpointing: RecomputingField = Field(
        False,
        description="less memory for more computing; selective: all but matrix products and attention is computed "
        "again; true: every layer; a number: that share of them; auto: the least that fits",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.init == "pretrained":
            if self.source is None:
                yield "source", "missing; name a folder, a URL, a GGUF file or a Hugging Face id"
            if self.size is not None:
                yield "size", "goes with init: random; remove it, or set init: random and remove source"
        else:
            if self.size is None:
                yield "size", "missing; give {vocab_size, hidden_size, num_layers, num_heads}"
            if self.source is not None:
                yield "source", "goes with init: pretrained; remove it, or remove init: random"
            if self.revision is not None:
                yield "revision", "goes with init: pretrained; remove it"
            if self.lora is not None:
                yield "lora", "adapts a pretrained model; remove it, or set init: pretrained"
