"""garbage: cycles are collected between steps, and never within one."""

import gc
import weakref

from scaletrain.train.garbage import Garbage


class Node:
    """Something that can be part of a cycle, and be watched."""

    def __init__(self) -> None:
        self.other: Node | None = None


def make_cycle() -> "weakref.ref[Node]":
    one, two = Node(), Node()
    one.other, two.other = two, one
    return weakref.ref(one)


def test_cycles_are_collected_at_every_fiftieth_step_only() -> None:
    """Not by themselves, however many objects are made; by the end of fifty steps they are gone."""
    with Garbage() as garbage:
        garbage.steps_begin()
        gone = make_cycle()
        _ = [Node() for _ in range(100_000)]
        for _ in range(49):
            garbage.step_ended()
            assert gone() is not None
        garbage.step_ended()
        assert gone() is None


def test_what_was_there_is_set_aside_and_what_the_start_leaves_is_collected() -> None:
    """Modules are not looked at again; a cycle that the start has made is gone when steps begin."""
    before = make_cycle()
    with Garbage() as garbage:
        begun = make_cycle()
        garbage.steps_begin()
        assert before() is not None
        assert begun() is None
    gc.collect()
    assert before() is None


def test_collection_is_as_before_afterwards() -> None:
    """The context switches on what it switched off, and forgets nothing of what was there."""
    assert gc.isenabled()
    with Garbage() as garbage:
        assert gc.isenabled()
        garbage.steps_begin()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
