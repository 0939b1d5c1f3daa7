"""A worker is killed, and the run goes on with another number, ZeRO stage, offload or not; LoRA, QLoRA or neither."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from attempts_on_processes import KILL, Attempt, finish, signal_in_step
from invariants import assert_recovered

from scaletrain import attempts
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from workers import Prepared

pytestmark = pytest.mark.long


ADAPTERS = {"lora": "{rank: 4}", "qlora": "{rank: 4, quantization: nf4}"}


@dataclass(frozen=True)
class Group:
    """Workers, and what they hold where: "optimizer" or "all" (parameters, too) in the host's memory, or nothing."""

    workers: int
    stage: int
    offload: str = ""

    @property
    def settings(self) -> dict[str, object]:
        found: dict[str, object] = {"workers": self.workers, "zero__stage": self.stage}
        if self.offload:
            found["zero__offload_optimizer"] = "cpu"
        if self.offload == "all":
            found["zero__offload_parameters"] = "cpu"
        return found

    def __str__(self) -> str:
        return f"{self.workers}x{self.stage}{self.offload}"


def _lora(prepared: Prepared, adapters: str) -> dict[str, object]:
    return {
        "model__init": "pretrained",
        "model__source": prepared.model_url,
        "model__size": "null",
        "model__lora": ADAPTERS[adapters],
        "train__learning_rate": 0.01,
    }


@pytest.fixture(scope="module")
def losses_of(prepared: Prepared, undisturbed: RunLayout) -> Callable[[str], list[float]]:
    """The losses of twelve undisturbed steps of two workers with ZeRO-2, of all weights and of adapters."""
    found = {"": _losses(undisturbed)}
    for adapters in ADAPTERS:
        finish(prepared, f"undisturbed-{adapters}", **_lora(prepared, adapters))
        found[adapters] = _losses(RunLayout(prepared.root, f"undisturbed-{adapters}"))
    return found.__getitem__


def _losses(run: RunLayout) -> list[float]:
    lines = read_records(run.metrics, last_step_of=attempts.read_attempts(run).last_step_of)
    return [float(str(line["loss"])) for line in lines]


@pytest.mark.parametrize(
    ("adapters", "before", "after"),
    [
        # Each stage, each kind of offload and of model; to fewer workers and to more.
        ("", Group(2, 1, "optimizer"), Group(3, 1, "optimizer")),
        ("", Group(2, 2), Group(3, 3, "all")),
        ("", Group(3, 3, "all"), Group(2, 0)),
        ("lora", Group(2, 2, "optimizer"), Group(3, 2, "optimizer")),
        ("lora", Group(2, 3, "all"), Group(1, 1)),
        ("qlora", Group(3, 2, "optimizer"), Group(1, 0)),
        # More of the same kinds.
        pytest.param("", Group(2, 2, "optimizer"), Group(1, 2, "optimizer"), marks=pytest.mark.soak),
        pytest.param("", Group(2, 3, "all"), Group(1, 3, "all"), marks=pytest.mark.soak),
        pytest.param("", Group(2, 3, "optimizer"), Group(3, 3, "all"), marks=pytest.mark.soak),
        pytest.param("lora", Group(2, 1), Group(3, 1), marks=pytest.mark.soak),
        pytest.param("lora", Group(2, 2), Group(1, 2), marks=pytest.mark.soak),
        pytest.param("lora", Group(2, 3), Group(1, 3), marks=pytest.mark.soak),
        pytest.param("lora", Group(2, 3, "all"), Group(3, 3, "all"), marks=pytest.mark.soak),
        pytest.param("qlora", Group(2, 2), Group(3, 1), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_another_group_goes_on_where_one_was_killed(
    prepared: Prepared, losses_of: Callable[[str], list[float]], adapters: str, before: Group, after: Group
) -> None:
    """Every step's loss is that of the undisturbed run to 1e-5, and each step's samples are proved."""
    name = f"{adapters}-{before}-{after}".strip("-")
    model = _lora(prepared, adapters) if adapters else {}
    armed = signal_in_step(8, ranks=(before.workers - 1,), number=KILL)
    ended = Attempt(prepared, name, arm=armed, **before.settings, **model).wait()
    assert ended[-1].exit_code == -KILL
    finish(prepared, name, **after.settings, **model)
    assert_recovered(prepared, name, None)
    assert _losses(RunLayout(prepared.root, name)) == pytest.approx(losses_of(adapters), abs=1e-5)
