"""judge.dealing: the least judged first, some to several judges, nobody twice."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scaletrain.judge.dealing import Dealer

PAIRS = [f"pair {number}" for number in range(20)]


def judge_all(dealer: Dealer, judges: list[str]) -> list[tuple[str, str]]:
    """Judges vote in turn until nobody has anything left."""
    judged: list[tuple[str, str]] = []
    while True:
        before = len(judged)
        for judge in judges:
            pair = dealer.next_pair(judge, judged)
            if pair is not None:
                judged.append((judge, pair))
        if len(judged) == before:
            return judged


@given(st.integers(1, 4), st.floats(0, 1), st.integers(0, 1000), st.integers(1, 25))
def test_every_pair_is_judged_and_the_share_of_them_twice(judges: int, overlap: float, seed: int, pairs: int) -> None:
    """Whatever the numbers: all pairs once, the asked share by a second judge where there is one, none twice by one."""
    dealer = Dealer(PAIRS[:pairs], overlap=overlap, seed=seed)
    judged = judge_all(dealer, [f"judge {number}" for number in range(judges)])
    counts = Counter(pair for _, pair in judged)
    assert set(counts) == set(PAIRS[:pairs])
    assert len(set(judged)) == len(judged)
    twice = sum(count > 1 for count in counts.values())
    assert twice >= (overlap * min(pairs, 20) if judges > 1 else 0)
    assert max(counts.values()) <= 2
    if judges > 1:
        assert dealer.progress("judge 0", judged).done == dealer.progress("judge 0", judged).wanted


def test_the_second_judge_does_not_wait_for_the_end() -> None:
    """With overlap, pairs that another one has judged are mixed in early."""
    dealer = Dealer(PAIRS, overlap=0.5, seed=0)
    judged = judge_all(dealer, ["Ana"])[:10]
    mine = []
    for _ in range(6):
        pair = dealer.next_pair("Ben", [*judged, *mine])
        assert pair is not None
        mine.append(("Ben", pair))
    seen = {pair for _, pair in judged}
    assert 0 < sum(pair in seen for _, pair in mine) < 6


def test_a_page_that_is_loaded_again_shows_the_same() -> None:
    """Until there is a vote; so do two tabs."""
    dealer = Dealer(PAIRS, overlap=0, seed=0)
    first = dealer.next_pair("Ana", [])
    assert dealer.next_pair("Ana", []) == first
    assert dealer.next_pair("Ana", [("Ana", str(first))]) != first


def test_what_one_judge_looks_at_is_not_dealt_to_another() -> None:
    """Until they have not voted for so long that they must have gone."""
    now = 0.0
    dealer = Dealer(PAIRS[:2], overlap=0, seed=0, clock=lambda: now)
    mine = dealer.next_pair("Ana", [])
    other = dealer.next_pair("Ben", [])
    assert {mine, other} == set(PAIRS[:2])
    now = 3600.0
    assert dealer.next_pair("Cleo", []) in PAIRS


def test_sides_are_drawn_for_each_judge_and_pair() -> None:
    """About half and half, the same on the next look, and not the same for everybody."""
    dealer = Dealer(PAIRS, overlap=0, seed=7)
    many = [f"pair {number}" for number in range(1000)]
    ana = [dealer.first_is_left("Ana", pair) for pair in many]
    assert ana == [Dealer(PAIRS, overlap=1, seed=7).first_is_left("Ana", pair) for pair in many]
    assert 400 < sum(ana) < 600
    assert 400 < sum(a == dealer.first_is_left("Ben", pair) for a, pair in zip(ana, many, strict=True)) < 600


def test_votes_on_other_pairs_do_not_count() -> None:
    """A database may hold several judgings."""
    dealer = Dealer(PAIRS, overlap=0, seed=0)
    assert dealer.progress("Ana", [("Ana", "elsewhere")]).done == 0
