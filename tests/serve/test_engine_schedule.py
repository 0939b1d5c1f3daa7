"""serve.engine_schedule: nobody overtakes, nobody starves, and the room is never more than there is."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.serve.engine_schedule import Running, Schedule


def schedule(*answers: Running, cache_tokens: int = 1000, max_running: int = 4, prefill_tokens: int = 50) -> Schedule:
    """A schedule with answers that wait."""
    made: Schedule[Running] = Schedule(
        cache_tokens=cache_tokens, longest=cache_tokens, max_running=max_running, prefill_tokens=prefill_tokens
    )
    made.waiting.extend(answers)
    return made


def request(prompt: int, most: int = 10) -> Running:
    """A request with a prompt of so many tokens, for so many more."""
    return Running([0] * prompt, prompt + most)


def step(plan: Schedule) -> None:
    """Do what is planned, as the engine would."""
    for share in plan.plan():
        chooses = share.chooses
        share.answer.cache.length += share.count
        if chooses:
            share.answer.tokens.append(0)
            if len(share.answer.tokens) >= share.answer.limit_tokens:
                plan.remove(share.answer)


def test_a_long_prompt_comes_in_parts_beside_running_answers() -> None:
    """Answers that run get a token in each step, whatever is being read."""
    short, long = request(5), request(120)
    plan = schedule(short, long)
    first, second = plan.plan()
    assert (first.answer, first.count, first.chooses) == (short, 5, True)
    assert (second.answer, second.count, second.chooses) == (long, 45, False)
    step(plan)
    assert [(share.answer, share.count) for share in plan.plan()] == [(short, 1), (long, 50)]


def test_nobody_overtakes_the_head_of_the_queue() -> None:
    """A request that needs more room than is free holds those behind it back until it is in."""
    first, large, small = request(500), request(700), request(5)
    plan = schedule(first, large, small)
    plan.plan()
    assert (plan.running, list(plan.waiting)) == ([first], [large, small])
    plan.remove(first)
    plan.plan()
    assert plan.running == [large, small]


def test_the_last_gives_its_room_to_the_first() -> None:
    """When the room is used up, the answer that came last waits again, at the head, with all of its tokens."""
    first, last, behind = request(10, 900), request(10, 900), request(10, 900)
    plan = schedule(first, last, behind, cache_tokens=400, max_running=2)
    while last in plan.running or not plan.running:
        step(plan)
    assert plan.running == [first]
    assert list(plan.waiting) == [last, behind]
    assert (last.cache.length, last.uncached) == (0, len(last.tokens))
    assert len(last.tokens) > 100


def test_a_cancelled_answer_is_gone_with_the_next_plan() -> None:
    """Its room is free at once."""
    answer = request(10)
    plan = schedule(answer)
    step(plan)
    answer.cancelled = True
    assert plan.plan() == []
    assert plan.cached_tokens == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 300)), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 80),
)
def test_all_end_and_the_room_is_never_exceeded(sizes: list[tuple[int, int]], most: int, prefill: int) -> None:
    """Whatever comes, with room for little more than the longest: all get done."""
    requests = [request(*size) for size in sizes]
    room = max(each.limit_tokens for each in requests) + 7
    plan = schedule(*requests, cache_tokens=room, max_running=most, prefill_tokens=prefill)
    for _ in range(20_000):
        if not plan.waiting and not plan.running:
            break
        step(plan)
        assert plan.cached_tokens <= room
        assert len(plan.running) <= most
    assert all(len(each.tokens) == each.limit_tokens for each in requests)
