"""order: the samples at a position are the same for ever, and every epoch has each sample once."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.data.order import SPAN_GROUPS, sample_ids

num_rows = st.one_of(st.integers(1, 200), st.integers(SPAN_GROUPS - 2, 3 * SPAN_GROUPS + 2))
group_rows = st.integers(1, 9)
seeds = st.integers(-(2**70), 2**70)
epochs = st.integers(0, 2**40)


def epoch_of(rows: int, group: int, *, seed: int, epoch: int) -> list[int]:
    return sample_ids(rows, group, seed=seed, start=epoch * rows, stop=(epoch + 1) * rows).tolist()


def test_the_order_never_changes() -> None:
    """These values were written down once; a run that began with an older version must go on with the same samples."""
    assert sample_ids(21, 4, seed=7, start=0, stop=21).tolist() == [
        *(19, 17, 16, 18, 1, 3, 0, 2, 7, 4, 5, 6, 20, 14, 12, 13, 15, 10, 11, 9, 8)
    ]
    assert sample_ids(21, 4, seed=7, start=21, stop=31).tolist() == [0, 3, 2, 1, 11, 10, 8, 9, 12, 15]
    far = sample_ids(10**9, 8, seed=1, start=10**15, stop=10**15 + 4)
    assert far.tolist() == [977256948, 977256950, 977256944, 977256946]
    three_epochs = sample_ids(70_000, 8, seed=0, start=0, stop=210_000).astype("<i8")
    assert hashlib.sha256(three_epochs.tobytes()).hexdigest() == (
        "057bcdd041c3ac7dc70592d625ef9f999c0781fc0e0f154ae43bebc87822bf5a"
    )


@settings(deadline=None)
@given(rows=num_rows, group=group_rows, seed=seeds, epoch=epochs)
def test_every_epoch_has_each_sample_once(rows: int, group: int, seed: int, epoch: int) -> None:
    """An epoch is a permutation of all rows, whether or not row groups and spans come out even."""
    assert sorted(epoch_of(rows, group, seed=seed, epoch=epoch)) == list(range(rows))


@settings(deadline=None)
@given(
    rows=num_rows, group=group_rows, seed=seeds, start=st.integers(0, 2**60), length=st.integers(0, 500), data=st.data()
)
def test_a_part_of_the_order_is_what_the_whole_has_there(
    rows: int, group: int, seed: int, start: int, length: int, data: st.DataObject
) -> None:
    """Positions alone decide: reading from the middle, or over the end of an epoch, gives the same ids."""
    cut = data.draw(st.integers(start, start + length))
    whole = sample_ids(rows, group, seed=seed, start=start, stop=start + length)
    parts = [sample_ids(rows, group, seed=seed, start=a, stop=b) for a, b in ((start, cut), (cut, start + length))]
    assert np.concatenate(parts).tolist() == whole.tolist()


@settings(deadline=None)
@given(rows=num_rows, group=group_rows, seed=seeds, epoch=epochs)
def test_a_row_group_is_visited_once_in_an_epoch(rows: int, group: int, seed: int, epoch: int) -> None:
    """The rows of a group follow one another, and those of a span too, so that each is fetched once."""
    ids = np.array(epoch_of(rows, group, seed=seed, epoch=epoch))
    for block in (group, group * SPAN_GROUPS):
        visits = 1 + np.count_nonzero(np.diff(ids // block))
        assert visits == len(np.unique(ids // block))


def test_epochs_and_seeds_differ() -> None:
    """Another epoch is another order, of row groups and of the rows in them; so is another seed."""
    orders = [epoch_of(800, 8, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            same_place = np.count_nonzero(np.array(order) == np.array(other))
            assert same_place < 20
            groups = np.count_nonzero(np.array(order) // 8 == np.array(other) // 8)
            assert groups < 100


def test_samples_are_spread_evenly_over_an_epoch() -> None:
    """Over many epochs each row is as often early as late: its mean place is the middle, to five standard errors."""
    rows, num_epochs = 37, 2000
    places = np.argsort([epoch_of(rows, 4, seed=5, epoch=epoch) for epoch in range(num_epochs)], axis=1)
    standard_error = (rows / 12**0.5) / num_epochs**0.5
    assert np.abs(places.mean(axis=0) - (rows - 1) / 2).max() < 5 * standard_error
