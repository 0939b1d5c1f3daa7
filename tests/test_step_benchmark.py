"""The step benchmark counts what it says, tells arms that computed something else, and draws what it measured."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from stepping.documents import sittings
from stepping.flops import Shape, step_flops
from stepping.picture import picture
from stepping.report import BARE, FREE, OURS, PADDED, TRL, Arm, Part, keep, load, markdown, section, unequal

SHAPE = Shape(300, 32, 96, 3, 4, 2, 8)


def part(title: str = "1B", *, device: str = "cuda", **arms: Arm) -> Part:
    names = {"ours": OURS, "bare": BARE, "padded": PADDED, "free": FREE, "trl": TRL}
    return Part(title, "one GPU", device, "Documents.", 1.2e9, {names[key]: arm for key, arm in arms.items()}, 1e15)


def arm(*tokens_per_s: float, loss: float = 12.1787, peak_gb: float = 60.0) -> Arm:
    flops = [7e9 * each for each in tokens_per_s]
    return Arm(16, list(tokens_per_s), flops, int(peak_gb * 1e9), loss, loss - 1)


MEASURED = part(
    ours=arm(67_000, 69_000),
    bare=arm(68_000, 68_500),
    padded=arm(13_700, 13_800, peak_gb=34.5),
    free=arm(63_000, 64_000, peak_gb=62.9),
    trl=replace(arm(), problem="needs <liger> & more"),
)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_flops_are_those_that_torch_counts(lora_rank: int) -> None:
    """One document of 64 tokens: what a pass multiplies is the formula, once attention's other half is taken away."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from scaletrain.config_model import LoraSection
    from scaletrain.model.loss import LossModel
    from stepping.work import Work, peers_model

    lora = LoraSection(rank=lora_rank) if lora_rank else None  # type: ignore[call-arg]
    model = LossModel(peers_model(Work(SHAPE, (), 64, 0, "cpu", lora), attention="eager").train())
    ids = torch.randint(0, SHAPE.vocab_size, (1, 64))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, positions=torch.arange(64)[None], documents=torch.ones_like(ids)).backward()
    other_half = 6 * SHAPE.num_hidden_layers * SHAPE.attention_size * 64**2
    counted = counter.get_total_flops() - other_half
    assert step_flops([64], 63, SHAPE, lora_rank=lora_rank) == pytest.approx(counted, rel=1e-3)


def test_the_picture_has_a_bar_and_a_range_for_each_arm_that_ran() -> None:
    """Speed and memory of four arms with two rounds each, and why the fifth is missing; colours for dark pages too."""
    drawn = picture([MEASURED, replace(MEASURED, title="8B, LoRA")])
    root = ElementTree.fromstring(drawn)
    elements = [(each.tag.rpartition("}")[2], each.get("class")) for each in root.iter()]
    assert elements.count(("rect", "ours")) == 2 * 2
    assert elements.count(("rect", "other")) == 2 * 2 * 3
    assert elements.count(("path", "range")) == 2 * 4
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert {"1B", "8B, LoRA", OURS, "68,000", "62.9", "did not run: needs <liger> & more"} <= set(texts)
    assert "prefers-color-scheme: dark" in drawn and root.get("viewBox") == f"0 0 900 {root.get('height')}"


def test_what_was_measured_before_stays_beside_what_is_measured_now(tmp_path: Path) -> None:
    """Cases are kept by their title: another one is added, the same one takes the older one's place."""
    path = tmp_path / "results" / "step.json"
    keep([MEASURED], path)
    keep([part("8B, LoRA", ours=arm(9_000))], path)
    again = part(ours=arm(70_000, 71_000))
    assert keep([again], path) == load(path)
    assert [each.title for each in load(path)] == ["1B", "8B, LoRA"]
    assert load(path)[0] == again


def test_an_arm_that_computed_something_else_is_told() -> None:
    """A first loss may differ by rounding alone; that of TRL a little more, whose steps are not quite the same."""
    assert unequal(MEASURED) == []
    assert unequal(part(ours=arm(1), trl=arm(1, loss=12.1))) == []
    other = part(ours=arm(1), free=arm(1, loss=12.1), trl=arm(1, loss=11.0))
    assert [problem.partition(" did not")[0] for problem in unequal(other)] == [FREE, TRL]
    assert "its first loss is 12.1000, not 12.1787" in section(other)
    assert unequal(part(ours=arm(1), bare=arm(1, loss=float("nan")))) != []


def test_an_arm_with_other_gradients_is_told() -> None:
    """Losses alone would not show an arm that trains something else: nor do they where no norm was noted."""
    ours = replace(arm(1), grad_norm=0.31)
    equal = part(ours=ours, bare=replace(ours, grad_norm=0.305), trl=replace(ours, grad_norm=0.35))
    assert unequal(equal) == []
    assert "First losses and the norms of their gradients are equal" in section(equal)
    (problem,) = unequal(part(ours=ours, bare=arm(1), free=replace(ours, grad_norm=0.031)))
    assert problem == f"{FREE} did not compute what {OURS} did: its first gradient norm is 0.0310, not 0.3100"
    assert "First losses are equal" in section(part(ours=ours, bare=arm(1)))


def test_a_target_is_kept_missed_or_unmeasured() -> None:
    """By medians, on a GPU alone; what a person noted stays below."""
    report = markdown([MEASURED, part("tiny", device="cpu", ours=arm(9_000))], notes="By hand.\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("|")]
    verdicts = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert verdicts["3.5 times the padded Trainer"] == ["4.945: kept", "unmeasured"]
    assert verdicts["1.0 times the best peer"] == [f"1.071: kept ({FREE})", "unmeasured"]
    assert verdicts["0.99 of bare DeepSpeed with the same kernels"] == ["0.996: kept", "unmeasured"]
    assert verdicts["peak memory 0.7 of the padding-free Trainer's"] == ["0.954: missed", "unmeasured"]
    assert verdicts["MFU 0.55, from 1B on"] == ["0.476: missed", "unmeasured"]
    assert report.endswith("## Notes\nBy hand.\n")
    assert " 5.00 [5.00, 5.00] |" in section(part(ours=arm(68_000), padded=arm(13_600, 13_900)))  # a round has begun


def message(sender: str, minute: int, text: str) -> dict[str, Any]:
    return {"sender": sender, "timestamp": f"2018-05-02T{minute // 60:02}:{minute % 60:02}:00Z", "text": text}


def test_a_sitting_is_what_one_person_said_and_heard_without_a_long_pause() -> None:
    """In order of time, cut at pauses of more than an hour; roles alternate, the one who began being the user."""
    first = {"messages": [[message("a", 100, "x" * 3_000)], [message("b", 101, "hello")], [message("a", 102, "bye")]]}
    before = {"messages": [[message("a", 50, "y" * 1_500)], [message("c", 51, "yes"), message("c", 52, "no")]]}
    later = {"messages": [[message("a", 300, "z" * 3_000)], [message("b", 301, "short")]]}
    another = {"messages": [[message("b", 100, "w" * 5_000)], [message("a", 101, "hm")]]}
    found = list(sittings([first, before, later, another, {"messages": []}]))
    assert [[(each["role"], each["content"][:6]) for each in messages] for messages in found] == [
        [("user", "yyyyyy"), ("assistant", "yes\nno"), ("user", "xxxxxx"), ("assistant", "hello"), ("user", "bye")],
        [("user", "wwwwww"), ("assistant", "hm")],
    ]
    assert all(one["role"] != other["role"] for messages in found for one, other in pairwise(messages))
