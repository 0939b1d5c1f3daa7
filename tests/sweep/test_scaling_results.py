"""sweep.scaling_records, scaling_results, scaling_tables and scaling_report: what a study has found."""

from pathlib import Path

import orjson
import pytest
from scaling_records_made import TOKENS_OF_A_ROW, records_of, section_of, steps_of, study_config

from scaletrain import storage
from scaletrain.config_file import load_config
from scaletrain.sweep.records import SweepLayout
from scaletrain.sweep.scaling_points import Point
from scaletrain.sweep.scaling_records import PointRecord, measurement, read_points, settled, write_point
from scaletrain.sweep.scaling_report import publish
from scaletrain.sweep.scaling_results import results_of
from scaletrain.sweep.scaling_tables import study_markdown


def pace(point: Point) -> float:
    """Two workers are 1.8 times as fast as one, four 3 times."""
    return {1: 1000.0, 2: 1800.0, 4: 3000.0}[point.workers]


def test_the_first_steps_of_each_attempt_settle_and_a_step_done_twice_counts_as_it_was_last() -> None:
    """A worker that was lost makes the next attempt settle again."""
    first = {step: {"step": step, "attempt": 1} for step in range(1, 9)}
    second = {step: {"step": step, "attempt": 2} for step in range(5, 11)}
    found = settled({2: second, 1: first}, settling_steps=2)
    assert [(line["step"], line["attempt"]) for line in found] == [
        *((step, 1) for step in (3, 4, 5, 6)),
        *((step, 2) for step in (7, 8, 9, 10)),
    ]


def test_a_measurement_has_medians_and_quartiles_and_leaves_out_what_is_not_known() -> None:
    """One slow step moves no median; MFU and prices are None where no line has them."""
    point = Point(1, 2, 12)
    steps = [*steps_of(point, 1000.0, count=9), *steps_of(point, 10.0, count=1, memory_bytes=3 * 10**9)]
    found = measurement(steps, start_up_s=1.0)
    assert (found.steps, found.tokens_per_s.median, found.tokens, found.memory_bytes) == (10, 1000.0, 600.0, 3 * 10**9)
    assert (found.mfu, found.usd_per_hour) == (None, None)


def test_efficiency_and_the_parts_of_a_step_are_against_the_smallest_point() -> None:
    """What a step takes beyond its share of computing is not computing, and the parts add up to the step."""
    config = study_config("{worker_counts: [1, 2, 4]}")
    (curve,) = results_of(config, section_of(config), records_of(config, pace, data_wait_s=0.02)).curves
    assert [each.efficiency for each in curve.points] == pytest.approx([1.0, 0.9, 0.75])
    assert [each.speedup for each in curve.points] == pytest.approx([1.0, 1.8, 3.0])
    for each in curve.points:
        assert each.parts.step_s == pytest.approx(each.measured.step_s.median)
    assert curve.points[0].parts.rest_s == pytest.approx(0.0)
    computing = (12 * TOKENS_OF_A_ROW / 1000 - 0.02) / 4
    assert curve.points[2].parts.computing_s == pytest.approx(computing)
    assert curve.points[2].parts.not_computing == pytest.approx(1 - computing / (12 * TOKENS_OF_A_ROW / 3000))


def test_micro_batches_that_do_not_divide_are_told_apart_from_communication() -> None:
    """Five workers and twelve micro batches: the busiest has three, where an even share is 2.4."""
    config = study_config("{worker_counts: [1, 5]}")
    (curve,) = results_of(
        config, section_of(config), records_of(config, lambda each: 1000.0 * min(each.workers, 4))
    ).curves
    parts, micro_batch_s = curve.points[1].parts, TOKENS_OF_A_ROW / 1000
    assert (parts.computing_s, parts.uneven_s) == pytest.approx((2.4 * micro_batch_s, 0.6 * micro_batch_s))
    assert parts.rest_s == pytest.approx(0.0, abs=1e-9)


def test_the_best_is_the_cheapest_within_the_deadline() -> None:
    """Without one it is the cheapest of all; where none is in time it is the fastest, and that is said."""
    whole_hours = 36_000 * 12 * TOKENS_OF_A_ROW / 1000 / 3600  # at one worker: 6 hours
    for deadline, best, in_time in (("null", 1, True), (str(whole_hours / 1.5), 2, True), ("0.1", 4, False)):
        config = study_config("{worker_counts: [1, 2, 4]}", f"sweep.scaling.deadline_hours={deadline}")
        records = records_of(config, pace)
        found = results_of(config, section_of(config), records)
        assert found.fastest is not None and found.cheapest is not None and found.best is not None
        assert (found.fastest.point.workers, found.cheapest.point.workers) == (4, 1)
        assert (found.best.point.workers, found.meets_deadline) == (best, in_time)
    assert "no point meets the deadline of 0.1 hours" in study_markdown(found)
    assert "prices of these machines are not known" in study_markdown(found)


def test_money_decides_where_prices_are_known() -> None:
    """Machines whose price does not grow with the workers make more of them cheaper."""
    config = study_config("{worker_counts: [1, 4]}")
    found = results_of(config, section_of(config), records_of(config, pace, usd_per_hour=2.0))
    assert found.has_prices and found.cheapest is not None and found.cheapest.point.workers == 4
    assert found.cheapest.usd_per_million_tokens == pytest.approx(1e6 / 3000 / 3600 * 2, rel=0.01)


def test_weak_points_are_not_compared_with_strong_ones() -> None:
    """A larger batch is another experiment, however fast; alone they are, over as many samples in fewer steps."""
    config = study_config("{worker_counts: [1, 4], modes: [strong, weak]}")
    records = records_of(config, lambda point: 1000.0 * point.workers * (1 if point.global_batch_size == 12 else 9))
    found = results_of(config, section_of(config), records)
    assert found.fastest is not None and found.fastest.point == Point(4, 2, 12)
    config = study_config("{worker_counts: [1, 4], modes: [weak]}")
    found = results_of(config, section_of(config), records)
    assert found.fastest is not None and found.fastest.point == Point(4, 2, 48)


def test_a_failed_smallest_point_makes_the_next_one_the_measure() -> None:
    """Out of memory at one worker: efficiency is against two, and the failure is told."""
    config = study_config("{worker_counts: [1, 2, 4]}")
    records = records_of(config, lambda point: None if point.workers == 1 else pace(point))
    found = results_of(config, section_of(config), records)
    assert [each.efficiency for each in found.curves[0].points] == pytest.approx([1.0, 3000 / 1800 / 2])
    assert "failed: 1 worker, stage 2, global batch 12: OutOfMemoryError" in study_markdown(found)


def test_a_law_forecasts_no_more_workers_than_have_work() -> None:
    """Four points give a law; with twelve micro batches a strong step has no use for sixteen workers."""
    config = study_config("{worker_counts: [1, 2, 3, 6]}")
    (curve,) = results_of(config, section_of(config), records_of(config, lambda each: 900.0 * each.workers)).curves
    assert curve.law is not None and [each.workers for each in curve.forecasts] == [12]
    assert curve.forecasts[0].tokens_per_s == pytest.approx(900 * 12)


def test_records_read_back_equal(tmp_path: Path) -> None:
    """Measured and failed ones, with everything in them."""
    config, layout = study_config("{worker_counts: [1, 2]}"), SweepLayout(str(tmp_path), "tiny")
    records = records_of(config, lambda point: None if point.workers == 1 else 1800.0, mfu=0.3)
    for record in records.values():
        write_point(layout, record)
    assert read_points(layout) == records
    assert all(isinstance(each, PointRecord) for each in records.values())


def test_what_is_published_is_whole_and_the_best_configuration_trains(tmp_path: Path) -> None:
    """The page escapes what errors say and has all four pictures; before any point there is no best.yaml."""
    config = study_config("{worker_counts: [1, 2, 4], modes: [strong, weak], stages: [1, 2]}", root=str(tmp_path))
    layout = SweepLayout(str(tmp_path), "tiny")
    publish(layout, config, section_of(config), {})
    assert not storage.exists(layout.best)
    records = records_of(config, lambda point: None if point == Point(4, 2, 48) else pace(point))
    publish(layout, config, section_of(config), records)
    page = storage.read_text(layout.report)
    assert "<b>no memory" not in page and "&lt;b&gt;no memory" in page and page.count("<figure") == 3
    assert page.count('class="parts"') == 11 and page.count('<g class="item') == 11
    best = load_config(layout.best)
    assert (best.name, best.scaling.workers, best.train.steps, best.sweep) == ("tiny.best", 1, 36_000, None)
    found = orjson.loads(storage.read_bytes(layout.results("json")))
    assert found["best"]["point"] == {"workers": 1, "stage": 1, "global_batch_size": 12}
    assert len(found["curves"]) == 4 and found["curves"][0]["points"][2]["efficiency"] == pytest.approx(0.75)
