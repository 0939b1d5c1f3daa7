"""reader: any range of any tensor reads back, from every store and whoever wrote it, or is an error."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saved_checkpoint import VALUES, save
from scaletrain import checkpoint
from scaletrain.errors import CheckpointError
from scaletrain.layout import RunLayout


def test_a_checkpoint_reads_back_from_every_store(bucket_root: str) -> None:
    """What was written comes back, from a folder, memory and S3."""
    run = RunLayout(bucket_root, "run")
    save(run, 10, world_size=3)
    source = checkpoint.open_checkpoint(run.checkpoint(10))
    assert source.names() == ("embed", "norm")
    assert source.kinds == ("exp_avg", "fp32")
    np.testing.assert_array_equal(source.read("fp32", "embed"), VALUES["embed"])
    np.testing.assert_array_equal(source.read("exp_avg", "norm"), -VALUES["norm"])
    assert checkpoint.verify(run.checkpoint(10)).step == 10


@settings(max_examples=60, deadline=None)
@given(world_size=st.integers(1, 9), data=st.data())
def test_any_range_reads_whoever_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, world_size: int, data: st.DataObject
) -> None:
    """A range may begin and end anywhere, whatever number of ranks wrote the parameter."""
    run = RunLayout(str(tmp_path_factory.mktemp("run")), "run")
    save(run, 1, world_size=world_size)
    source = checkpoint.open_checkpoint(run.checkpoint(1))
    offset = data.draw(st.integers(0, 400))
    length = data.draw(st.integers(0, 400 - offset))
    np.testing.assert_array_equal(
        source.read("fp32", "embed", offset, length), VALUES["embed"][offset : offset + length]
    )


def test_a_range_that_nobody_wrote_is_an_error(run: RunLayout) -> None:
    """A hole in a parameter is named; it does not read as zeros."""
    committed = save(run, 10)
    checkpoint.commit(run.checkpoint(10), replace(committed, files=committed.files[:1]))
    with pytest.raises(CheckpointError, match="holds 200 of 400 elements of fp32 of embed"):
        checkpoint.open_checkpoint(run.checkpoint(10)).read("fp32", "embed")
