"""QLoRA: the frozen linear layers below LoRA's adapters keep their weights in 4 bits, by bitsandbytes.

A weight is one of NF4's 16 values times the largest magnitude of its block of 64; those magnitudes take a byte each,
and 256 of them share an fp32 scale (double quantization; Dettmers et al. 2023, arXiv:2305.14314). For a product a layer
makes its weights whole again, in the type that is computed in. Codes follow from the stored weights alone, whatever the
run computes in, so that every worker, every later start and an export have the same ones. Embeddings and the output
layer stay as they are.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaletrain.devices import check_quantization
from scaletrain.errors import ConfigError
from scaletrain.model.shape import model_on_meta

if TYPE_CHECKING:
    import torch
    from torch import nn

_LEAST_LINEAR = 0.5  # of a model's matrices: below that, what takes memory is not what is quantised


def load_quantized(folder: Path, *, computing: "torch.dtype", device: "torch.device", attention: str = "sdpa") -> Any:
    """Load a model onto a device with its linear layers in 4 bits, which compute in the type `computing`.

    One matrix after the other is read in the type in which it is stored, and quantised on the device. What is not
    quantised keeps its type: `cast` it once the adapters are there. Raises DeviceError without bitsandbytes.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    check_quantization("nf4")
    configure: Any = BitsAndBytesConfig
    wanted = configure(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computing,
    )
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", quantization_config=wanted, device_map={"": device}, attn_implementation=attention
    )
    for layer in quantized_layers(model):
        layer.weight.quant_state.dtype = computing  # as the forward pass rounds a weight, so does the backward pass
        layer.support_avx512bf16_for_cpu = False  # a pass without gradients would repack the weights for good
    return model


def quantized_layers(model: "nn.Module") -> list[Any]:
    """The layers of a model whose weights are in 4 bits."""
    from bitsandbytes.nn import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def cast(model: "nn.Module", dtype: "torch.dtype") -> None:
    """Give all weights that are not quantised this type, in place."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def load_dequantized(folder: Path, *, computing: "torch.dtype") -> Any:
    """Load on the CPU, in fp32, what a quantised model computes with: its weights as they are made whole."""
    import torch

    model = load_quantized(folder, computing=computing, device=torch.device("cpu"))
    model = model.dequantize(torch.float32)
    cast(model, torch.float32)
    model.config.dtype = torch.float32
    return model


def check_model(model_url: str) -> None:
    """Raise ConfigError for a model whose weights are not in plain linear layers: only these are quantised.

    Reads its config.json only; StorageError where that cannot be read, ModelError where it describes no model.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    from scaletrain.model.settings import read_settings

    model = model_on_meta(read_settings(model_url), source=model_url)
    linear = [each for each in model.modules() if type(each) is torch.nn.Linear]
    embeddings = {id(each.weight) for each in model.modules() if isinstance(each, torch.nn.Embedding)}
    matrices = sum(each.numel() for each in model.parameters() if each.ndim >= 2 and id(each) not in embeddings)
    quantized = sum(each.weight.numel() for each in linear if id(each.weight) not in embeddings)
    if quantized < _LEAST_LINEAR * matrices or any(isinstance(each, Conv1D) for each in model.modules()):
        raise ConfigError(
            f"model.lora.quantization: got nf4, but a {model.config.model_type} keeps its weights in other layers than "
            "linear ones, as those of experts are; use none"
        )
