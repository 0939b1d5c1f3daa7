"""Runs and machines to simulate, small and large, by hand and by hypothesis."""

import math

from hypothesis import strategies as st

from scaletrain.simulate.series import Series
from scaletrain.simulate.setting import Pool, Setting

HOUR_S = 3600.0


def pool(losses_per_hour: float = 0.0, *, per_machine: int = 1, capacity: Series | None = None) -> Pool:
    """Machines at 1 USD an hour on spot and 3 on demand."""
    return Pool(
        machine_type="m",
        zone="a",
        usd_per_hour=Series.constant(1.0),
        losses_per_hour=Series.constant(losses_per_hour),
        capacity=capacity or Series.constant(math.inf),
        on_demand_usd_per_hour=3.0,
        workers_per_machine=per_machine,
    )


def plain(**changes: float) -> Setting:
    """1,000 steps of 2 s on 4 workers, saved every 100; nothing but training and saving takes any time."""
    values = {"steps": 1000, "micro_batches": 8, "micro_batch_s": 1.0, "least": 4, "most": 4, "every_steps": 100}
    quick = {"start_s": 0.0, "loss_seen_s": 0.0, "launch_s": 0.0, "by_hand_s": 0.0, "notice_seen_s": 0.0}
    return Setting(**{**values, **quick, **changes})  # type: ignore[arg-type]


@st.composite
def settings_of_all_kinds(draw: st.DrawFn) -> Setting:
    """Runs of seconds to days, with every part of the model in them, now and then."""
    most = draw(st.integers(1, 40))
    return Setting(
        steps=draw(st.integers(1, 3000)),
        micro_batches=draw(st.integers(1, 64)),
        micro_batch_s=draw(st.floats(0.01, 5)),
        fixed_s=draw(st.floats(0, 2)),
        least=draw(st.integers(1, most)),
        most=most,
        every_steps=draw(st.integers(1, 400)),
        stall_s=draw(st.floats(0, 20)),
        upload_s=draw(st.floats(0, 200)),
        restore_s=draw(st.floats(0, 60)),
        start_s=draw(st.floats(0, 60)),
        loss_seen_s=draw(st.floats(0, 30)),
        launch_s=draw(st.floats(0, 400)),
        notice_s=draw(st.sampled_from([0.0, 5.0, 30.0, 120.0])),
        wait_s=draw(st.floats(30, 1200)),
        on_demand_share=draw(st.sampled_from([0.0, 0.3, 1.0])),
        hardware_losses_per_hour=draw(st.sampled_from([0.0, 0.01, 0.1])),
        head_usd_per_hour=draw(st.sampled_from([0.0, 0.5])),
    )


@st.composite
def pools_of_all_kinds(draw: st.DrawFn) -> list[Pool]:
    """One or two pools of some days, with prices, rates and capacity that change."""
    found = []
    for zone in range(draw(st.integers(1, 2))):
        count = draw(st.integers(1, 6))
        starts = [each * HOUR_S for each in range(count)]

        def series(values: st.SearchStrategy[float], starts: list[float] = starts) -> Series:
            return Series(starts, [draw(values) for _ in starts], len(starts) * HOUR_S)

        found.append(
            Pool(
                machine_type="m",
                zone=str(zone),
                usd_per_hour=series(st.floats(0.1, 5)),
                losses_per_hour=series(st.sampled_from([0.0, 0.02, 0.5, 3.0])),
                capacity=series(st.sampled_from([0.0, 2.0, 10.0, math.inf])),
                on_demand_usd_per_hour=3.0,
                workers_per_machine=draw(st.sampled_from([1, 4])),
            )
        )
    return found
