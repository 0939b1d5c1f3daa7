"""study: what is recommended is what is cheap in the model, and by how much is told run by run."""

from dataclasses import replace

import pytest
from simulated import HOUR_S, plain, pool

from scaletrain.simulate.display import figure, more, study_record
from scaletrain.simulate.estimate import Range, difference, estimate
from scaletrain.simulate.report import report_html
from scaletrain.simulate.setting import Setting
from scaletrain.simulate.study import Study, between_losses_s, study, with_workers


@pytest.fixture(scope="module")
def found() -> Study:
    """Saves of ten seconds each ten steps, on machines that are often taken without a word."""
    setting = plain(steps=20_000, every_steps=10, stall_s=10, start_s=30, launch_s=120, least=2)
    return study(setting, [pool(0.05)], fewest=2, most=8, runs=60, seed=0, knows_prices=True)


def test_a_bad_interval_is_replaced_by_one_near_the_formulas(found: Study) -> None:
    """A run that saves every ten steps stands half of the time; the recommended one costs less, beyond doubt."""
    best, configured = found.recommended, found.rows[1]
    trained_s = best.setting.every_steps * best.setting.step_s(best.setting.most)
    assert found.interval_s / 4.1 < trained_s < found.interval_s * 4.1
    assert configured.name == "as configured"
    assert configured.more_usd.low > 0
    assert sum(best.usd) <= min(sum(row.estimate.usd) for row in found.rows if row.name.startswith("saves")) * 1.01


def test_a_deadline_is_kept_by_more_workers() -> None:
    """Four workers cannot, eight can."""
    setting = plain(steps=4000, every_steps=100, head_usd_per_hour=0.0)
    late = study(setting, [pool()], fewest=1, most=8, runs=4, seed=0, knows_prices=True, deadline_hours=1.2)
    assert late.recommended.setting.most == 8
    easy = study(setting, [pool()], fewest=1, most=8, runs=4, seed=0, knows_prices=True, deadline_hours=50)
    assert sum(easy.recommended.usd) <= sum(late.recommended.usd)


def test_cheap_spot_machines_that_are_seldom_taken_are_recommended() -> None:
    """And on-demand ones where spot machines are taken every minute."""
    setting = plain(steps=200, stall_s=1, start_s=30)
    seldom = study(setting, [pool(0.01)], fewest=4, most=4, runs=10, seed=0, knows_prices=True, deadline_hours=9)
    assert seldom.recommended.setting.on_demand_share == 0
    often = study(setting, [pool(30.0)], fewest=4, most=4, runs=4, seed=0, knows_prices=True, deadline_hours=9)
    assert often.recommended.setting.on_demand_share == 1


def test_the_report_and_the_record_have_every_alternative(found: Study) -> None:
    """The page needs nothing else; JSON has the same numbers."""
    html = report_html(found, name="my <run>", origins={"a step": "2 s"}, notes=["a note"]).decode()
    record = study_record(found, origins={}, notes=[], seed=0)
    assert html.count("<script>") == 1 and html.count("<figure") == 2
    assert "my &lt;run&gt;" in html
    for row, kept in zip(found.rows, record["alternatives"], strict=True):
        assert row.name in html
        assert kept["hours"]["mean"] == pytest.approx(sum(row.estimate.hours) / row.estimate.runs)
    assert len(found.intervals) > 4


def test_estimates_have_intervals_that_shrink() -> None:
    """And nine of ten runs lie within the wider range."""
    few, many = (estimate(plain(start_s=30), [pool(1.0)], runs=runs, seed=0) for runs in (30, 300))
    narrow, wide = Range.of(many.hours), Range.of(few.hours)
    assert narrow.high - narrow.low < wide.high - wide.low
    assert narrow.p5 <= narrow.mean <= narrow.p95
    assert sum(narrow.p5 <= each <= narrow.p95 for each in many.hours) >= 0.89 * 300
    assert difference(many.hours, many.hours) == Range(0, 0, 0, 0, 0)


def test_what_a_worker_holds_changes_with_their_number() -> None:
    """Half as many workers save twice as much each; a group of four fails four times as often as a machine."""
    setting: Setting = plain(stall_s=1, upload_s=10, restore_s=4)
    halved = with_workers(setting, 1, 2)
    assert (halved.stall_s, halved.upload_s, halved.restore_s) == (2, 20, 8)
    assert between_losses_s(setting, pool(0.5)) == HOUR_S / 2
    assert between_losses_s(replace(setting, on_demand_share=0.5), pool(0.5)) == HOUR_S
    assert between_losses_s(setting, pool()) == float("inf")


def test_figures_are_read_easily() -> None:
    """No powers of ten, and a difference of nothing is 0."""
    assert [figure(value) for value in (0.0012, 3.14159, 123.456, 21400.4)] == ["0.001", "3.142", "123.5", "21,400"]
    assert more(Range(10700, 10600, 10800, 0, 0), of=1) == "+10,700 ±100"
    assert more(Range(-0.5, -0.75, -0.25, 0, 0), of=1) == "-0.5 ±0.25"
    assert more(Range(0, 0, 0, 0, 0), of=1) == "0"
    assert more(Range(0.004, 0.003, 0.005, 0, 0), of=0.08) == "+0.004 ±0.001"
    assert more(Range(0.004, 0.003, 0.005, 0, 0), of=80) == "0"
