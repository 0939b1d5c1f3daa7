"""A checkpoint becomes a folder that plain transformers loads, with exactly the trained weights."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from scaletrain import storage
from scaletrain.config_file import dump_config, load_config
from scaletrain.config_model import LoraSection, ModelSection
from scaletrain.errors import CheckpointError, ConfigError
from scaletrain.layout import RunLayout
from scaletrain.model.build import materialise
from scaletrain.model.export import export_run, find_checkpoint
from scaletrain.model.export_place import check_folder
from scaletrain.model.generate import Sampling, load_for_chat, reply
from tiny import TEXTS, commit, tiny_config, tiny_model_folder, tiny_run, tiny_tokenizer

SYSTEM = 'Say "no" in \\ 中文 🙂,\nnever {% if %} {{ x }}.'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(30)[None]).logits
        return found


def load(folder: str | Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_the_export_has_the_trained_weights(tmp_path: Path) -> None:
    """Two workers' slices come together as the model that was trained, bit for bit."""
    run, trained = tiny_run(str(tmp_path))
    exported = load(export_run(run, str(tmp_path / "out")))
    assert torch.equal(logits(exported), logits(trained))
    assert exported.lm_head.weight is exported.model.embed_tokens.weight
    assert exported.dtype == torch.float32


def test_the_export_talks_as_scaletrain_does(tmp_path: Path) -> None:
    """Tokenizer, chat template and generation settings are there: plain transformers gives the same greedy answer."""
    from transformers import AutoTokenizer

    run, _ = tiny_run(str(tmp_path))
    folder = export_run(run, str(tmp_path / "out"))
    messages = [{"role": "user", "content": TEXTS[0]}]
    ours = reply(*load_for_chat(Path(folder), device="cpu"), messages, Sampling(temperature=0, max_new_tokens=20))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load(folder)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
    assert ours == tokenizer.decode(answer, skip_special_tokens=True)
    assert model.generation_config.eos_token_id == tiny_tokenizer().eos_token_id


def test_generation_ends_with_the_turn(tmp_path: Path) -> None:
    """Where a base model stops at another token only, the export's own settings name the end of a turn as well."""
    root, base = str(tmp_path), tiny_model_folder(tmp_path / "base", eos_token_id=0)
    section = ModelSection(source=str(base))
    model_url = materialise(section, root=root, seed=0)
    run = RunLayout(root, "run")
    storage.write_text(run.config, dump_config(tiny_config(root, section)))
    commit(run, step=1, model_url=model_url, trained=dict(load(base).named_parameters()))
    exported = load(export_run(run, str(tmp_path / "out")))
    assert load(base).generation_config.eos_token_id == 0
    assert exported.generation_config.eos_token_id == [0, tiny_tokenizer().eos_token_id]


def test_a_run_that_was_moved_is_exported_where_it_is(tmp_path: Path) -> None:
    """Its model lies beside it, whatever the commit says of the place where it was trained."""
    _, trained = tiny_run(str(tmp_path / "before"))
    (tmp_path / "before").rename(tmp_path / "after")
    exported = load(export_run(RunLayout(str(tmp_path / "after"), "run"), str(tmp_path / "out")))
    assert torch.equal(logits(exported), logits(trained))


def test_adapters_are_merged(tmp_path: Path) -> None:
    """An export of a LoRA run needs no peft, and computes what base and adapters computed."""
    run, trained = tiny_run(str(tmp_path), lora=LoraSection(rank=4))
    exported = load(export_run(run, str(tmp_path / "out")))
    assert not any("lora" in name for name, _ in exported.named_parameters())
    torch.testing.assert_close(logits(exported), logits(trained), atol=1e-4, rtol=1e-4)


def quantized_run(root: Path) -> tuple[RunLayout, Any]:
    """A run of adapters over a base in 4 bits, and its model as a worker has it."""
    return tiny_run(str(root), lora=LoraSection(rank=4, quantization="nf4"))


def test_a_merged_export_has_the_base_that_was_trained_over(tmp_path: Path) -> None:
    """QLoRA: ordinary weights, the rounded ones of the base with the adapters in them: logits and loss to 1e-4."""
    run, trained = quantized_run(tmp_path)
    exported = load(export_run(run, str(tmp_path / "out")))
    assert {parameter.dtype for parameter in exported.parameters()} == {torch.float32}
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    torch.testing.assert_close(logits(exported), logits(trained), atol=1e-4, rtol=1e-4)
    ids = torch.arange(30)[None]
    found, expected = (model(input_ids=ids, labels=ids).loss.item() for model in (exported, trained))
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_adapter_over_4_bits_says_what_it_needs(tmp_path: Path) -> None:
    """Its card tells of the quantisation, and loaded as it says the adapter computes what was trained, to 1e-5."""
    from peft import AutoPeftModelForCausalLM
    from transformers import BitsAndBytesConfig

    run, trained = quantized_run(tmp_path)
    folder = Path(export_run(run, str(tmp_path / "out"), form="adapter"))
    card = (folder / "README.md").read_text()
    assert "in 4 bits (NF4, double quantization)" in card
    assert "| method | LoRA of rank 4, over a base in 4 bits" in card
    code = card.partition("nf4 = ")[2].partition("\nmodel = ")[0]
    nf4 = eval(code, {"torch": torch, "BitsAndBytesConfig": BitsAndBytesConfig})
    again = AutoPeftModelForCausalLM.from_pretrained(folder, dtype="auto", quantization_config=nf4)
    torch.testing.assert_close(logits(again), logits(trained), atol=1e-5, rtol=1e-5)


def test_a_bucket_is_as_good_as_a_folder(s3_bucket: str, tmp_path: Path) -> None:
    """Run and export may both lie in a bucket; what comes back is the same model."""
    run, trained = tiny_run(s3_bucket)
    storage.download_folder(export_run(run, run.export), tmp_path / "down")
    assert torch.equal(logits(load(tmp_path / "down")), logits(trained))


def test_the_export_has_the_precision_of_training_unless_told_otherwise(tmp_path: Path) -> None:
    """A run in bf16 is exported in bf16, rounded from its fp32 masters; --dtype decides where it is given."""
    run, trained = tiny_run(str(tmp_path))
    manifest = find_checkpoint(run)
    weights = dict(trained.named_parameters())
    commit(run, step=20, model_url=manifest.model_url, trained=weights, precision="bf16")
    exported = load(export_run(run, str(tmp_path / "auto")))
    assert exported.dtype == torch.bfloat16
    assert torch.equal(exported.model.norm.weight, trained.model.norm.weight.bfloat16())
    assert torch.equal(logits(load(export_run(run, str(tmp_path / "fp32"), dtype="fp32"))), logits(trained))


def test_the_newest_checkpoint_is_taken_unless_a_step_is_named(tmp_path: Path) -> None:
    """The newest by default; an older one by its step; none that was not committed."""
    run, trained = tiny_run(str(tmp_path), step=10)
    older = logits(trained)
    manifest = find_checkpoint(run)
    with torch.no_grad():
        trained.model.norm.weight += 1
    commit(run, step=20, model_url=manifest.model_url, trained=dict(trained.named_parameters()))
    storage.write_text(f"{run.checkpoint(30)}/rank-00000.safetensors", "half")
    assert torch.equal(logits(load(export_run(run, str(tmp_path / "new")))), logits(trained))
    assert torch.equal(logits(load(export_run(run, str(tmp_path / "old"), step=10))), older)
    with pytest.raises(CheckpointError, match="no committed checkpoint of step 30"):
        export_run(run, str(tmp_path / "none"), step=30)


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    """The error says which run, and what to do."""
    with pytest.raises(CheckpointError, match=r"young has no committed checkpoint.*train it first"):
        export_run(RunLayout(str(tmp_path), "young"), str(tmp_path / "out"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    """Weights that do not fit are named, with both shapes; nothing is exported."""
    run, trained = tiny_run(str(tmp_path))
    manifest = find_checkpoint(run)
    other = {name: torch.zeros(3) for name in dict(trained.named_parameters())}
    commit(run, step=20, model_url=manifest.model_url, trained=other)
    with pytest.raises(CheckpointError, match=r"does not fit the model.*\(3,\) in the checkpoint"):
        export_run(run, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    """No weights of the old one are left beside the new ones."""
    run, _ = tiny_run(str(tmp_path))
    folder = Path(export_run(run, str(tmp_path / "out")))
    (folder / "model-00001-of-00002.safetensors").write_text("an old shard")
    export_run(run, str(folder))
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]


def test_other_files_are_never_written_among(tmp_path: Path) -> None:
    """A folder that holds something else is refused and left as it is."""
    run, _ = tiny_run(str(tmp_path))
    storage.write_text(str(tmp_path / "home" / "letter.txt"), "dear")
    with pytest.raises(ConfigError, match="is not empty"):
        export_run(run, str(tmp_path / "home"))
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


def test_the_models_own_chat_template_goes_with_it(tmp_path: Path) -> None:
    """A run that was trained with another template is exported with that one."""
    from transformers import AutoTokenizer

    run, _ = tiny_run(str(tmp_path))
    storage.write_text(str(tmp_path / "mine.jinja"), "{{ messages[0]['content'] }}!")
    text = storage.read_text(run.config).replace("chat_template: null", f"chat_template: {tmp_path}/mine.jinja")
    storage.write_text(run.config, text)
    tokenizer = AutoTokenizer.from_pretrained(export_run(run, str(tmp_path / "out")))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi!"


def test_the_template_asks_as_the_run_was_trained(tmp_path: Path) -> None:
    """Whoever loads the folder gives no setting: its template has the system prompt, and leaves thinking out."""
    from transformers import AutoTokenizer

    run, _ = tiny_run(str(tmp_path))
    thinks = "{% for m in messages %}{{ m['content'] }}|{% endfor %}{{ 'off' if enable_thinking is false else 'on' }}"
    storage.write_text(str(tmp_path / "mine.jinja"), thinks)
    data = {"chat_template": str(tmp_path / "mine.jinja"), "system_prompt": SYSTEM}
    config = load_config(run.config, ())
    storage.write_text(run.config, dump_config(config.model_copy(update={"data": config.data.model_copy(update=data)})))
    tokenizer = AutoTokenizer.from_pretrained(export_run(run, str(tmp_path / "out")))
    said, own = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Mine."}
    assert tokenizer.apply_chat_template([said], tokenize=False) == f"{SYSTEM}|Hi|off"
    assert tokenizer.apply_chat_template([own, said], tokenize=False, enable_thinking=True) == "Mine.|Hi|on"


def test_the_model_card_tells_where_the_model_comes_from(tmp_path: Path) -> None:
    """The README has data, steps and what was measured of this checkpoint, and nothing measured of another one."""
    run, _ = tiny_run(str(tmp_path))
    manifest = find_checkpoint(run)
    for name, checkpoint_hash, value in (("base", "", 54.9), ("step", manifest.manifest_hash, 36.3), ("x", "other", 9)):
        figures = [{"corpus": "all", "perplexity": value, "tokens": 5559}]
        record = {"subject": {"checkpoint": checkpoint_hash}, "perplexities": figures}
        storage.write_bytes(f"{run.evaluation}/{name}.json", orjson.dumps(record))
    card = (Path(export_run(run, str(tmp_path / "out"))) / "README.md").read_text()
    assert "| all | 54.90 | 36.30 | not measured | 5,559 |" in card
    assert "| steps | 10 |" in card
    assert "talk.jsonl" in card
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_the_folder_becomes_a_model_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that is cut short leaves nothing that a reader would take for a model, old or new."""
    run, _ = tiny_run(str(tmp_path))
    folder = Path(export_run(run, str(tmp_path / "out")))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"

    def full(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(storage, "upload_folder", full)
    with pytest.raises(OSError, match="disk full"):
        export_run(run, str(folder))
    assert not (folder / "config.json").exists()


def test_a_model_of_others_is_never_replaced(tmp_path: Path) -> None:
    """Only a folder whose README is ours is an earlier export: a downloaded model is left as it is."""
    run, _ = tiny_run(str(tmp_path))
    storage.write_text(str(tmp_path / "base" / "config.json"), "{}")
    storage.write_text(str(tmp_path / "base" / "README.md"), "---\ntags:\n- chat\n---\n\n- scaletrain\n")
    with pytest.raises(ConfigError, match="is no earlier export"):
        export_run(run, str(tmp_path / "base"))
    assert (tmp_path / "base" / "config.json").read_text() == "{}"


def test_the_model_that_a_run_began_with_is_never_replaced(tmp_path: Path) -> None:
    """Even where that is an earlier export itself."""
    run, _ = tiny_run(str(tmp_path))
    folder = export_run(run, str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="which the run was trained from"):
        check_folder(folder, commit="config.json", source=f"{folder}/")
