"""Training on preferences: the same exactness, a reference that is computed once, and pairs that are learned."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from commands import run as command
from scaletrain import storage
from scaletrain.config_file import dump_config
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import DataError
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger
from scaletrain.train.reference import Part, _packed, _unpacked, reference_url
from workers import Prepared, make_job, tiny_config, train

GOOD, BAD = ("Very well, thanks!", "Fine.", "I like it a lot."), ("Go away.", "No!", "Why do you ask me that?")


@dataclass(frozen=True)
class Pairs:
    """A dataset of pairs and a random model, with the settings that every run of them has."""

    prepared: Prepared
    settings: dict[str, str]

    def train(self, name: str, *, workers: int, attempt: int = 1, **overrides: object) -> list[dict[str, Any]]:
        return train(self.prepared, name, workers=workers, attempt=attempt, **self.settings, **overrides)

    def job(self, name: str, **overrides: object) -> Any:
        return make_job(self.prepared, name, **self.settings, **overrides)

    def reference_url(self) -> str:
        job = self.job("any")
        return reference_url(job, load_index(job.dataset_url))

    def parts(self) -> dict[str, bytes]:
        """The parts of the reference, by name."""
        found = storage.list_objects(self.reference_url())
        return {each.url.rpartition("/")[2]: storage.read_bytes(each.url) for each in found}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {"prompt": f"What about number {i}?", "chosen": GOOD[i % 3], "rejected": BAD[i // 3 % 3]} for i in range(160)
    ]
    source = folder / "pairs.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    settings = {
        "data__corpora": f"[{{format: preferences, source: {source}}}]",
        "data__seq_len": "128",
        "train__objective": "dpo",
        "train__dpo": "{beta: 0.3}",
        "train__steps": "10",
        "train__evaluate_every_steps": "10",
    }
    root = str(folder / "bucket")
    made = prepare(tiny_config(root, **settings), use_ray=False)
    return Pairs(Prepared(root, made.dataset_url, made.model_url), settings)


@pytest.fixture(scope="module")
def alone(pairs: Pairs) -> list[dict[str, Any]]:
    """Ten steps of one worker, without ZeRO."""
    return pairs.train("alone", workers=1, zero__stage=0)


def test_pairs_are_learned(alone: list[dict[str, Any]]) -> None:
    """Training begins where the reference is, at log 2; then the margin grows, also that of held-out pairs."""
    first, last = alone[0], alone[-1]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert first["reward_margin"] == pytest.approx(0, abs=1e-3)
    assert last["loss"] < 0.4
    assert (last["pair_accuracy"], last["validation_pair_accuracy"]) == (1.0, 1.0)
    assert last["reward_margin"] > 0.5 and last["validation_reward_margin"] > 0.5
    assert last["validation_loss"] < 0.4 and "validation_perplexity" not in last
    assert all(line["pairs"] >= 24 for line in alone)


def test_losses_agree_at_any_number_of_workers(pairs: Pairs, alone: list[dict[str, Any]]) -> None:
    """The mean is over the pairs of the whole global batch; a reference that is made anew is the same to rounding."""
    before = pairs.parts()
    for name in before:
        storage.remove(storage.join(pairs.reference_url(), name))
    found = pairs.train("two", workers=2, zero__stage=3, train__micro_batch_size=1)
    for name in ("loss", "reward_margin", "pairs", "tokens"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in alone], abs=1e-4), name
    assert [line["pair_accuracy"] for line in found[1:]] == [line["pair_accuracy"] for line in alone[1:]]
    for name in ("validation_loss", "validation_reward_margin"):
        assert found[-1][name] == pytest.approx(alone[-1][name], abs=1e-4)
    for name, part in pairs.parts().items():
        ours, theirs = (np.frombuffer(each[:-16], "<f4") for each in (part, before[name]))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_resumed_run_reads_the_reference_and_goes_on_alike(pairs: Pairs, alone: list[dict[str, Any]]) -> None:
    """Two workers stop after five steps, one goes on: the trained weights are no new reference, the ledger is one."""
    before = pairs.parts()
    pairs.train("resumed", workers=2, debug__stop_after=5)
    found = pairs.train("resumed", workers=1, attempt=2)
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in alone], abs=1e-4)
    assert found[-1]["validation_loss"] == pytest.approx(alone[-1]["validation_loss"], abs=1e-4)
    assert pairs.parts() == before
    assert ledger.check_chain(read_records(RunLayout(pairs.prepared.root, "resumed").ledger))


def test_adapters_over_a_base_in_4_bits_are_compared_with_that_base(pairs: Pairs) -> None:
    """QLoRA: at the first step nothing has changed, so that no margin is there; pairs are learned from then on."""
    model = {"model__init": "pretrained", "model__source": pairs.prepared.model_url, "model__size": "null"}
    model |= {"model__lora": "{rank: 4, quantization: nf4}", "train__learning_rate": "0.01"}
    lines = train(pairs.prepared, "pairs-4-bits", workers=1, **pairs.settings | model)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[0]["reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_damaged_part_of_the_reference_is_named() -> None:
    """What does not match its checksum is not compared with, be it changed or cut short."""
    part = Part("train", 0, 2)
    counts, values = np.array([2, 4], np.int32), np.arange(6, dtype=np.float32)
    sound = _packed(counts, values)
    for expected, found in zip((counts, values), _unpacked("u", sound, part), strict=True):
        np.testing.assert_array_equal(found, expected)
    for damaged in (sound[:9] + b"x" + sound[10:], sound[:-3], b""):
        with pytest.raises(DataError, match=r"b/train-0\.bin: is damaged; remove it"):
            _unpacked("b/train-0.bin", damaged, part)


@pytest.mark.long
def test_a_step_is_replayed_with_its_pairs(pairs: Pairs, alone: list[dict[str, Any]]) -> None:
    """The loss of the rebuilt step is the recorded one, per pair."""
    run = RunLayout(pairs.prepared.root, "alone")
    storage.write_text(run.config, dump_config(pairs.job("alone", zero__stage=0).config))
    found = orjson.loads(command("replay", run.url, "--step", "7", "--blame", "--device", "cpu", "--json"))
    assert found["loss"] == pytest.approx(found["recorded_loss"], abs=1e-5) == alone[6]["loss"]
