"""A model card is complete, true to the bucket, and valid for the hub."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from huggingface_hub import ModelCard

from scaletrain import config_file, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.data.statistics import CorpusStatistics, SplitStatistics, Statistics
from scaletrain.layout import RunLayout
from scaletrain.model.card import model_card
from scaletrain.model.export import find_checkpoint
from tiny import tiny_run

SOURCE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def corpus(name: str, **changes: Any) -> CorpusStatistics:
    counted = {"files": 1, "read": 1200, "kept": 1000, "dropped": {}, "drop_examples": {}, "bad_rows": 0,
               "bad_row_examples": (), "turns": 4000, "tokens": 50_000, "supervised_tokens": 20_000}  # fmt: skip
    return CorpusStatistics(name=name, **{**counted, **changes})


@pytest.fixture
def found(tmp_path: Path) -> tuple[RunLayout, Manifest, Config]:
    """A run with its dataset's statistics and two evaluations beside it, of a model that is on the hub."""
    run, _ = tiny_run(str(tmp_path))
    manifest = find_checkpoint(run)
    statistics = Statistics(
        dataset_id="0123456789abcdef",
        seq_len=64,
        corpora=(
            corpus("messages", licences={"MIT": 900, "unknown": 100}, languages={"en": 900, "de": 100}),
            corpus("talk|show", licences={"CC-BY-4.0": 1000}, languages={"unknown": 1000}),
        ),
        splits={"train": SplitStatistics(1900, 2000, 1700, 100_000, 40_000, 0.98, {}, {}, {})},
    )
    dataset = storage.join(run.root, "data", "none")
    storage.write_bytes(f"{dataset}/stats.json", statistics.to_json())
    storage.write_text(f"{dataset}/index.json", "{}")
    for name, checkpoint_hash, value in (("base", "", 54.9), ("step", manifest.manifest_hash, 36.3)):
        figures = {"corpus": "all", "perplexity": value, "low": value - 1, "high": value + 1, "tokens": 5559}
        record = {"subject": {"checkpoint": checkpoint_hash}, "perplexities": [{**figures, "bits_per_byte": 1.25}]}
        storage.write_bytes(f"{run.evaluation}/{name}.json", orjson.dumps(record))
    other = {"subject": {"run": "other", "checkpoint": ""}, "perplexities": [{"corpus": "all", "perplexity": 1.0}]}
    storage.write_bytes(f"{run.evaluation}/against-other-base.json", orjson.dumps(other))
    config = config_file.load_config(run.config)
    model = config.model.model_copy(update={"source": SOURCE, "revision": "main"})
    options = config.storage.model_copy(update={"options": {"key": "top-secret"}})
    return run, manifest, config.model_copy(update={"model": model, "storage": options})


def test_the_metadata_is_what_the_hub_takes(found: tuple[RunLayout, Manifest, Config]) -> None:
    """huggingface_hub reads it back: base model, languages, licence, and the measured perplexity."""
    card = ModelCard(model_card(*found, licence="Apache-2.0"))
    data = card.data
    assert (data.base_model, data.license, data.language) == (SOURCE, "apache-2.0", ["en", "de"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.to_dict()["base_model_relation"] == "finetune"
    [result] = data.eval_results
    assert (result.metric_type, result.metric_value) == ("perplexity", 36.3)


def test_the_card_states_the_data_and_its_licences(found: tuple[RunLayout, Manifest, Config]) -> None:
    """Each corpus with what was kept of it; what nobody knows is said, and nothing breaks the table."""
    text = model_card(*found)
    assert (
        "| messages | `talk.jsonl` | 1,000 | 50,000 | 20,000 | MIT (900), unknown (100) | en (900), de (100) |" in text
    )
    assert "| talk\\|show |" in text
    assert "The data is under: CC-BY-4.0, MIT, unknown." in text
    assert "nobody has stated it yet" in text
    assert "1,700 rows of 64 tokens" in text


def test_the_card_states_how_the_model_was_made(found: tuple[RunLayout, Manifest, Config]) -> None:
    """Step, tokens, ledger, and the configuration but for where it is stored."""
    run, manifest, _ = found
    text = model_card(*found)
    for wanted in ("| steps | 10 |", "1,000, 400 of them", manifest.ledger_hash, manifest.manifest_hash, run.name):
        assert wanted in text
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert set(shown) == {"model", "data", "train", "zero", "seed"}
    assert "top-secret" not in text
    assert "| all | 54.90 | 36.30 (35.30 to 37.30) | 1.250 | 5,559 |" in text
    assert "## Intended use and limits" in text


def test_passwords_in_urls_are_left_out(found: tuple[RunLayout, Manifest, Config]) -> None:
    """Wherever a URL stands, in tables or in the configuration."""
    run, manifest, config = found
    corpora = [each.model_copy(update={"source": "ftp://me:secret@host/x"}) for each in config.data.corpora]
    data = config.data.model_copy(update={"corpora": tuple(corpora)})
    text = model_card(run, manifest, config.model_copy(update={"data": data}))
    assert "ftp://host/x" in text
    assert "secret" not in text


def test_without_dataset_and_evaluation_the_card_is_still_true(tmp_path: Path) -> None:
    """What is not there is not stated, and the metadata is valid."""
    run, _ = tiny_run(str(tmp_path))
    manifest = find_checkpoint(run)
    text = model_card(run, manifest, config_file.load_config(run.config))
    assert "Perplexity on" not in text
    assert "- messages (`talk.jsonl`)" in text
    assert ModelCard(text).data.eval_results is None


def test_each_corpus_has_its_own_figure_in_the_metadata(found: tuple[RunLayout, Manifest, Config]) -> None:
    """The hub keeps them apart; what all of a single corpus would say again is left out."""
    run, manifest, _ = found

    def figures_of(*corpora: str) -> dict[str, Any]:
        figures = [{"corpus": each, "perplexity": 2.0, "tokens": 10} for each in corpora]
        record = {"subject": {"checkpoint": manifest.manifest_hash}, "perplexities": figures}
        storage.write_bytes(f"{run.evaluation}/step.json", orjson.dumps(record))
        results = ModelCard(model_card(*found)).data.eval_results
        return {each.dataset_config: each.dataset_name for each in results}

    assert list(figures_of("all", "one")) == ["one"]
    two = figures_of("all", "one", "two")
    assert two == {each: f"held-out conversations: {each}" for each in ("all", "one", "two")}
