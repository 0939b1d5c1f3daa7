"""sweep.scaling_law: the law that made the numbers is found again, and its error is told."""

import math

import pytest

from scaletrain.sweep.scaling_law import fit


def usl(workers: int, contention: float, coherency: float) -> float:
    return 5000 * workers / (1 + contention * (workers - 1) + coherency * workers * (workers - 1))


@pytest.mark.parametrize(("contention", "coherency"), [(0.06, 0.0004), (0.05, 0.0), (0.0, 0.0), (0.0, 0.001)])
def test_the_law_that_made_the_points_is_found(contention: float, coherency: float) -> None:
    """Amdahl's where there is no coherency; a straight line where there is neither."""
    law = fit({workers: usl(workers, contention, coherency) for workers in (1, 2, 4, 8, 16)})
    assert law is not None
    assert law.rate == pytest.approx(5000)
    assert (law.contention, law.coherency) == pytest.approx((contention, coherency), abs=1e-9)
    assert law.throughput(64) == pytest.approx(usl(64, contention, coherency))
    assert law.error < 1e-9 and law.worst_prediction < 1e-6
    if not coherency:
        assert law.peak_workers > 1e3


def test_the_peak_is_where_more_workers_are_slower() -> None:
    """From there on throughput falls."""
    law = fit({workers: usl(workers, 0.04, 0.002) for workers in (1, 2, 4, 8, 16)})
    assert law is not None and law.peak_workers == pytest.approx(math.sqrt(0.96 / 0.002))
    assert law.throughput(law.peak_workers) > max(law.throughput(law.peak_workers + each) for each in (-3, 3))


def test_noise_shows_as_error_and_superlinear_points_give_no_negative_parameters() -> None:
    """A point that is 20% off is seen in both errors; more than linear growth fits a straight line at best."""
    points = {workers: usl(workers, 0.05, 0.0) for workers in (1, 2, 4, 8)}
    law = fit({**points, 4: 0.8 * points[4]})
    assert law is not None and law.error > 0.03 and law.worst_prediction > 0.1
    law = fit({workers: 5000 * workers**1.1 for workers in (1, 2, 4, 8)})
    assert law is not None and (law.contention, law.coherency) == (0, 0)


def test_three_points_are_too_few() -> None:
    """A law of three parameters would go through them, whatever they are."""
    assert fit({1: 1.0, 2: 2.0, 4: 3.0}) is None
