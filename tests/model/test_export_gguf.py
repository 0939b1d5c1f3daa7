"""A GGUF file holds the trained model: transformers reads it back with the same logits and the same tokens."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, pre_tokenizers

from scaletrain import storage
from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.export import export_run
from scaletrain.model.export_gguf import write_gguf
from scaletrain.model.prompt import encode_messages
from tiny import TEXTS, tiny_model, tiny_run, tiny_tokenizer

SCALETRAIN = str(Path(sys.executable).with_name("scaletrain"))
MESSAGES = [{"role": "user", "content": f"{TEXTS[0]} {TEXTS[4]}"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read_back(path: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32), tokenizer


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([encode_messages(tiny_tokenizer(), MESSAGES)])).logits
        return found


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def test_a_run_comes_back_from_its_gguf_file(tmp_path: Path) -> None:
    """On the command line, bit for bit in fp32: weights, tokens, chat template, and the token that ends a turn."""
    _, trained = tiny_run(str(tmp_path))
    path = tmp_path / "my-model.gguf"
    command = [SCALETRAIN, "export", "run", str(path), "--root", str(tmp_path), "--licence", "mit"]
    assert subprocess.check_output(command, text=True, timeout=120).strip() == str(path)
    model, tokenizer = read_back(path)
    assert torch.equal(logits(model), logits(trained))
    assert encode_messages(tokenizer, MESSAGES) == encode_messages(tiny_tokenizer(), MESSAGES)
    known = metadata(path)
    assert known["tokenizer.ggml.eot_token_id"] == known["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert (known["general.name"], known["general.license"]) == ("run", "mit")
    assert known["tokenizer.ggml.pre"] == "gpt-2"


def test_untied_embeddings_and_unused_rows_are_kept(tmp_path: Path) -> None:
    """The output has weights of its own, and the embedding more rows than the tokenizer tokens."""
    model = tiny_model(tie_word_embeddings=False, vocab_size=330, num_key_value_heads=4)
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", dtype="fp32", name="m")
    assert torch.equal(logits(read_back(tmp_path / "m.gguf")[0]), logits(model))
    assert metadata(tmp_path / "m.gguf")["tokenizer.ggml.tokens"][-1] == "[PAD329]"


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 0.02), ("bf16", 0.1), ("q8_0", 0.1)])
def test_smaller_types_are_close(dtype: Any, tolerance: float, tmp_path: Path) -> None:
    """Rounded once from fp32; a row of 48 numbers has no block of 32, so q8_0 keeps those in fp16."""
    model = tiny_model(hidden_size=64, intermediate_size=48)
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", dtype=dtype, name="m")
    found, exact = logits(read_back(tmp_path / "m.gguf")[0]), logits(model)
    assert (found - exact).abs().max() < tolerance * exact.abs().max()
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["output_norm.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == {"fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}[dtype]
    assert kinds["blk.0.ffn_down.weight"] == {"fp16": "F16", "bf16": "BF16", "q8_0": "F16"}[dtype]


def test_what_cannot_be_written_exactly_is_refused(tmp_path: Path) -> None:
    """Every reason is told, and what to do instead; no file is left."""
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=backend)
    other = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=320, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=2)
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"is qwen2, not llama; .*biases; its tokenizer.*convert_hf_to_gguf"):
        write_gguf(other, words, tmp_path / "m.gguf", dtype="fp32", name="m")
    scaled = tiny_model(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(ModelError, match=r"scaled \(linear\)"):
        write_gguf(scaled, tiny_tokenizer(), tmp_path / "m.gguf", dtype="fp32", name="m")
    assert list(tmp_path.glob("*.gguf")) == []


def test_digits_on_their_own_are_smollm(tmp_path: Path) -> None:
    """llama.cpp splits text as the model's tokenizer does, by the name it has for that."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    words = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tiny_tokenizer().chat_template)
    write_gguf(tiny_model(), words, tmp_path / "m.gguf", dtype="fp32", name="m")
    assert metadata(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == "smollm"


def test_a_gguf_file_goes_to_a_bucket_as_well(s3_bucket: str, tmp_path: Path) -> None:
    """It is one object, there whole or not at all; a type of GGUF for a folder is refused, as is a mix of both."""
    run, _ = tiny_run(str(tmp_path))
    export_run(run, f"{s3_bucket}/m.gguf", form="gguf", dtype="q8_0", push_to=str(tmp_path / "m.gguf"))
    assert storage.read_bytes(f"{s3_bucket}/m.gguf") == (tmp_path / "m.gguf").read_bytes()
    with pytest.raises(ConfigError) as caught:
        export_run(run, str(tmp_path / "folder"), dtype="q8_0", push_to=f"{s3_bucket}/n.gguf")
    assert len(caught.value.problems) == 2
