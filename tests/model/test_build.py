"""The model that training starts from: made once, the same for the same causes, loaded as configured."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scaletrain import storage
from scaletrain.config_model import SMALLEST_VOCABULARY, LoraSection, ModelSection, ModelSize
from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.build import check_seq_len, fetch, load_index, load_model, load_tokenizer, materialise
from tiny import TEXTS, smollm2_folder, tiny_model_folder

SMALL = ModelSize(vocab_size=300, hidden_size=32, num_layers=1, num_heads=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """An empty cache of this test's own; the real model's conversion is kept between tests."""
    if "real_model" not in request.keywords:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def random_start(root: str, *, seed: int = 0, size: ModelSize = SMALL, texts: tuple[str, ...] = TEXTS) -> str:
    return materialise(ModelSection(init="random", size=size), root=root, seed=seed, corpus_texts=lambda: texts)


def weights(url: str) -> str:
    return next(file.checksum for file in load_index(url).files if file.name == "model.safetensors")


def plain(model_url: str, **settings: Any) -> Any:
    return load_model(model_url, ModelSection(source="x", **settings), dtype=torch.float32, attention="sdpa")


def test_a_model_is_made_once_and_reused(bucket_root: str, tmp_path: Path) -> None:
    """The second run finds what the first one made, in every kind of storage, and can load it."""
    section = ModelSection(source=str(tiny_model_folder(tmp_path / "source")))
    url = materialise(section, root=bucket_root, seed=0)
    before = storage.list_objects(url)
    assert materialise(section, root=bucket_root, seed=0) == url
    assert storage.list_objects(url) == before
    assert url.startswith(f"{bucket_root}/models/source-")
    assert plain(url).num_parameters() > 0


def test_rows_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    """A model would be trained on positions that it has never seen."""
    folder = tiny_model_folder(tmp_path / "model")
    url = materialise(ModelSection(source=str(folder)), root=str(tmp_path), seed=0)
    positions = load_model(
        url, ModelSection(source=url), dtype=torch.float32, attention="sdpa"
    ).config.max_position_embeddings
    check_seq_len(url, positions)
    with pytest.raises(ConfigError, match=f"use data.seq_len={positions} or less"):
        check_seq_len(url, positions + 1)


def test_positions_count_by_whatever_name_a_family_has_for_them(tmp_path: Path) -> None:
    """GPT-2 says n_positions; rows beyond its table of positions would end the first step."""
    from transformers import GPT2Config

    GPT2Config(n_positions=64, n_embd=32, n_layer=1, n_head=2).save_pretrained(tmp_path)
    check_seq_len(str(tmp_path), 64)
    with pytest.raises(ConfigError, match=r"use data\.seq_len=64 or less"):
        check_seq_len(str(tmp_path), 65)


def test_an_interrupted_model_is_made_again(tmp_path: Path) -> None:
    """Files without an index, as a kill leaves them, are written over."""
    section = ModelSection(source=str(tiny_model_folder(tmp_path / "source")))
    url = materialise(section, root=str(tmp_path), seed=0)
    storage.remove(f"{url}/index.json")
    storage.write_text(f"{url}/config.json", "half")
    assert materialise(section, root=str(tmp_path), seed=0) == url
    assert plain(url).num_parameters() > 0


def test_many_callers_make_one_model(s3_bucket: str) -> None:
    """Two runs that start at once end with the same whole model."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        urls = pool.map(random_start, [s3_bucket] * 2)
    assert len(set(urls)) == 1
    assert fetch(urls[0])


def test_a_random_start_is_a_function_of_seed_size_and_corpus(tmp_path: Path) -> None:
    """The same causes give the same bits, also elsewhere; any other cause gives another model."""
    first = random_start(str(tmp_path / "a"))
    again = random_start(str(tmp_path / "b"))
    assert Path(first).name == Path(again).name
    assert load_index(first).files == load_index(again).files
    others = [
        random_start(str(tmp_path / "a"), seed=1),
        random_start(str(tmp_path / "a"), size=SMALL.model_copy(update={"num_layers": 2})),
        random_start(str(tmp_path / "a"), texts=TEXTS[:3]),
    ]
    assert len({first, *others}) == 4
    assert weights(first) != weights(others[0])


def test_a_random_start_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    """Building a model does not change what anything else draws."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    url = random_start(str(tmp_path))
    plain(url, lora=LoraSection(rank=2))
    assert torch.equal(torch.rand(3), expected)


def test_a_trained_tokenizer_keeps_every_text(tmp_path: Path) -> None:
    """Bytes it has never seen survive the round trip, and turns are marked by single tokens."""
    tokenizer = load_tokenizer(random_start(str(tmp_path)))
    text = "Ünïcode 漢字 \x00 👩‍👩‍👧 \t\n end"
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]


def test_the_smallest_vocabulary_is_that_of_a_tokenizer_of_bytes(tmp_path: Path) -> None:
    """What the configuration takes at least holds every byte and every special token, and nothing else."""
    url = random_start(str(tmp_path), size=SMALL.model_copy(update={"vocab_size": SMALLEST_VOCABULARY}))
    assert len(load_tokenizer(url)) == SMALLEST_VOCABULARY


def test_an_empty_corpus_trains_no_tokenizer(tmp_path: Path) -> None:
    """Nothing to learn from is an error, not a tokenizer of single bytes."""
    with pytest.raises(ModelError, match="no text"):
        random_start(str(tmp_path), texts=())


def test_lora_trains_adapters_that_follow_the_seed(tmp_path: Path) -> None:
    """All linear layers but the output get adapters; the base is frozen; the same seed draws the same adapters."""
    url = random_start(str(tmp_path))
    adapters = []
    for seed in (0, 0, 1):
        section = ModelSection(source="x", lora=LoraSection(rank=2))
        model = load_model(url, section, dtype=torch.bfloat16, attention="sdpa", seed=seed)
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        assert len(trained) == 2 * 7
        assert all("lora_" in name and value.dtype == torch.bfloat16 for name, value in trained.items())
        adapters.append(torch.cat([value.detach().flatten() for value in trained.values()]))
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2])


def test_unknown_target_modules_are_named(tmp_path: Path) -> None:
    """A typo in lora.target_modules does not train nothing in silence."""
    with pytest.raises(ModelError, match="no_proj"):
        plain(random_start(str(tmp_path)), lora=LoraSection(target_modules=("no_proj",)))


@pytest.mark.parametrize("lora", [None, LoraSection(rank=2)])
def test_gradient_checkpointing_changes_no_gradient(lora: LoraSection | None, tmp_path: Path) -> None:
    """Less memory, the same mathematics, with and without adapters."""
    url = random_start(str(tmp_path), size=SMALL.model_copy(update={"num_layers": 2}))
    ids = torch.arange(20)[None]
    found = []
    for checkpointing in (False, 0.5, "selective", True):
        model = plain(url, lora=lora, gradient_checkpointing=checkpointing)
        model(input_ids=ids, labels=ids).loss.backward()
        assert model.is_gradient_checkpointing == (checkpointing in (0.5, True))  # a selective one is ours
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for each in found[1:]:
        torch.testing.assert_close(each, found[0])


def test_a_chat_template_of_ones_own_is_used(tmp_path: Path) -> None:
    """data.chat_template replaces the model's, wherever it is kept."""
    storage.write_text(str(tmp_path / "mine.jinja"), "{{ messages[0]['content'] }}!")
    tokenizer = load_tokenizer(random_start(str(tmp_path)), chat_template=str(tmp_path / "mine.jinja"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"


def test_zero3_loads_partitioned_weights(tmp_path: Path) -> None:
    """Two ranks hold half of each weight from the start, keep embeddings tied, and have one rank's loss; LoRA too."""
    url = materialise(ModelSection(source=str(tiny_model_folder(tmp_path / "source"))), root=str(tmp_path), seed=0)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = Path(__file__).with_name("zero3_worker.py")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment.pop("XDG_CACHE_HOME")  # DeepSpeed would compile its operator anew for an empty cache
    done = subprocess.run(
        [*command, str(script), url], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("as expected") == 2


@pytest.mark.real_model
def test_smollm2_is_converted_with_its_tied_embeddings() -> None:
    """The GGUF of the package becomes an ordinary folder of 134.5 million fp32 weights."""
    model = plain(str(smollm2_folder()))
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
