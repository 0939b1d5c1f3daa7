"""Every kind of model source, good and bad."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scaletrain import storage
from scaletrain.errors import ModelError
from scaletrain.model import sources
from scaletrain.model.tokenizer import CHATML, PLAIN
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer


def assembled(source: str, folder: Path) -> Path:
    folder.mkdir()
    sources.assemble(sources.locate(source), folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_taken_with_the_bytes_it_has(tmp_path: Path) -> None:
    """Weights are not converted, nor is anything else that belongs to the model."""
    source = tiny_model_folder(tmp_path / "source")
    (source / "training.log").write_text("not part of the model")
    made = assembled(str(source), tmp_path / "made")
    assert (made / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert {path.name for path in made.iterdir()} == {path.name for path in source.iterdir()} - {"training.log"}


def test_a_folder_in_a_bucket_is_taken_alike(s3_bucket: str, tmp_path: Path) -> None:
    """A URL is as good as a path."""
    source = tiny_model_folder(tmp_path / "source")
    storage.upload_folder(source, f"{s3_bucket}/some/model")
    made = assembled(f"{s3_bucket}/some/model", tmp_path / "made")
    assert (made / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_the_fingerprint_is_the_contents(tmp_path: Path) -> None:
    """A copy of a model is the same model; other weights are another one."""
    source = tiny_model_folder(tmp_path / "source")
    shutil.copytree(source, tmp_path / "copy")
    other = tiny_model_folder(tmp_path / "other", seed=1)
    prints = [sources.locate(str(path)).fingerprint() for path in (source, tmp_path / "copy", other)]
    assert prints[0] == prints[1] != prints[2]


def test_pickled_weights_become_safetensors(tmp_path: Path) -> None:
    """An old model with pytorch_model.bin only is converted, by torch's weights-only reader."""
    import torch
    from safetensors.torch import load_file

    source = tiny_model_folder(tmp_path / "source", tie_word_embeddings=False)
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    made = assembled(str(source), tmp_path / "made")
    assert not list(made.glob("*.bin"))
    converted = load_file(made / "model.safetensors")
    assert all(torch.equal(converted[name], value) for name, value in weights.items())


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    """A model that does not predict the next token is named as what it is."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="not a causal language model \\(BertForMaskedLM\\)"):
        assembled(str(tmp_path / "bert"), tmp_path / "made")


def remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


BROKEN = {
    "without config": (remove("config.json"), "no config.json"),
    "without weights": (remove("model.safetensors"), "no weights"),
    "without tokenizer": (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "no tokenizer"),
    "cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100]),
        r"model\.safetensors is damaged or cut short",
    ),
    "quantised": (
        lambda folder: edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised",
    ),
    "of an unknown kind": (
        lambda folder: edit_json(folder / "config.json", model_type="never-heard"),
        "cannot be used",
    ),
    "only adapters": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "LoRA adapters",
    ),
    "with a bigger tokenizer": (lambda folder: edit_json(folder / "config.json", vocab_size=300), "no pair"),
    "with a lost shard": (
        lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x-2.safetensors"}}'),
        r"lacks x-2\.safetensors",
    ),
}


@pytest.mark.parametrize("breakage", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_folder_is_refused_with_the_reason(breakage: tuple[Any, str], tmp_path: Path) -> None:
    """The error names the model and what is wrong with it, before any training."""
    damage, message = breakage
    source = tiny_model_folder(tmp_path / "source")
    damage(source)
    with pytest.raises(ModelError, match=message) as caught:
        assembled(str(source), tmp_path / "made")
    assert str(source) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./not/there/at/all", "no such model folder"),
        ("s3-typo://bucket/model", "unknown kind of URL"),
        ("nothing.gguf", "no such GGUF file"),
        ("package:no_such_package/model.gguf", "pip install no-such-package"),
        ("package:scaletrain/model.gguf", "has no model.gguf"),
    ],
)
def test_a_source_that_is_not_there_is_named(source: str, message: str) -> None:
    """A typo in the path is told apart from a broken model."""
    with pytest.raises(Exception, match=message) as caught:
        sources.locate(source).fingerprint()
    assert getattr(caught.value, "exit_code", None) == 2


def test_a_hub_id_without_a_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback of an HTTP client, but what to name instead."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="hub cannot be reached"):
        assembled("some-organisation/some-model", tmp_path / "made")


@pytest.mark.parametrize("has_chatml", [True, False])
def test_a_base_model_gets_a_chat_template(has_chatml: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ChatML where its tokens exist, else a plain one that ends turns with the end-of-text token; with a warning."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = tmp_path / "base"
    tiny_model().save_pretrained(source)
    words = tiny_tokenizer()
    if has_chatml:
        words.save_pretrained(source)
        (source / "chat_template.jinja").unlink()
    else:
        vocabulary = {"<eos>": 0, "a": 1}
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>")), eos_token="<eos>"
        ).save_pretrained(source)
    made = AutoTokenizer.from_pretrained(assembled(str(source), tmp_path / "made"))
    assert made.chat_template == (CHATML if has_chatml else PLAIN)
    assert made.pad_token is not None
    assert "has no chat template" in caplog.text


def test_a_gguf_file_becomes_the_model_it_was_made_from(tmp_path: Path) -> None:
    """Weights, tied embeddings and the configuration's numbers survive; the folder loads and saves as any other."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, words = tiny_model(num_key_value_heads=4), tiny_tokenizer()
    write_gguf(gguf, tmp_path / "tiny.gguf", model, words)
    made = assembled(str(tmp_path / "tiny.gguf"), tmp_path / "made")
    loaded = AutoModelForCausalLM.from_pretrained(made)
    assert loaded.dtype == torch.float32
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    ids = torch.tensor([words("How are you today?")["input_ids"]])
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(made)("How are you?")["input_ids"] == words("How are you?")["input_ids"]
    loaded.save_pretrained(tmp_path / "again")


def write_gguf(gguf: Any, path: Path, model: Any, words: Any) -> None:
    """Write a Llama in llama.cpp's format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    add_gguf_tokenizer(gguf, writer, words, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = value.float()
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp interleaves the halves that rotate
            heads = config.num_attention_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).transpose(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_gguf_tokenizer(gguf: Any, writer: Any, words: Any, vocab_size: int) -> None:
    state = json.loads(words.backend_tokenizer.to_str())
    by_id = sorted(words.get_vocab(), key=words.get_vocab().get)
    special = set(words.all_special_tokens) | {token.content for token in words.added_tokens_decoder.values()}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(by_id)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in special else kinds.NORMAL for token in by_id])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_pad_token_id(words.pad_token_id)
    writer.add_chat_template(words.chat_template)
