"""What the votes say: win rates, scores, agreement, judges to look at, and whether it is decided."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from scaletrain.judge.agreement import alpha_interval
from scaletrain.judge.bradley_terry import Interval, scores
from scaletrain.judge.feedback import Feedback
from scaletrain.judge.items import Items
from scaletrain.judge.stopping import Decision, decide
from scaletrain.judge.suspicion import JudgeReport, binomial_two_sided, judge_reports
from scaletrain.judge.tallies import Tallies, tally
from scaletrain.judge.votes import Vote
from scaletrain.wilson import wilson_bounds

ERROR = 0.05
_JUDGES_ANEW = 5  # with fewer, drawing judges anew is too narrow: simulated, it holds the truth 86% of the time with 3


@dataclass(frozen=True)
class WinRate:
    """How often `first` was preferred to `second`, ties and both bad as half, each pair of answers counting once."""

    first: str
    second: str
    rate: Interval
    pairs: int
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int


@dataclass(frozen=True)
class Score:
    """A model's Bradley-Terry score; `judges_anew` is the interval had other judges voted, where that can be told."""

    model: str
    score: Interval
    judges_anew: Interval | None


@dataclass(frozen=True)
class Thumbs:
    """What users of a served model said of its answers."""

    model: str
    up: int
    down: int
    share_up: Interval


@dataclass(frozen=True)
class Result:
    """All that is told of a judging. `alpha_nominal` and `alpha_ordinal` are None where no pair was judged twice."""

    models: tuple[str, ...]
    prompts: int
    pairs: int
    pairs_judged: int
    equal_answers: int
    votes: int
    votes_elsewhere: int
    left_out_judges: tuple[str, ...]
    win_rates: tuple[WinRate, ...]
    scores: tuple[Score, ...]
    decisions: tuple[Decision, ...]
    alpha_nominal: Interval | None
    alpha_ordinal: Interval | None
    judges: tuple[JudgeReport, ...]
    left_share: Interval
    left_probability: float
    reasons: dict[str, dict[str, int]]
    thumbs: tuple[Thumbs, ...]
    error: float

    def record(self) -> dict[str, object]:
        """The result as plain data."""
        decisions = [{**asdict(each), "winner": each.winner} for each in self.decisions]
        return {**asdict(self), "decisions": decisions}

    @property
    def verdicts(self) -> list[str]:
        """Whether it is decided, a sentence for every two models."""
        return list(map(_sentence, self.decisions)) or ["Nobody has voted yet."]


def result_of(
    items: Items,
    votes: Sequence[Vote],
    feedback: Sequence[Feedback] = (),
    *,
    leave_out: Collection[str] = (),
    error: float = ERROR,
    seed: int = 0,
) -> Result:
    """Compute everything from the votes; those of judges in `leave_out` do not count.

    `error`: the chance that any of the decisions is wrong about there being a difference, at whatever time it is read.
    """
    counted = [vote for vote in votes if vote.judge not in leave_out]
    tallies = tally(items, counted)
    ranked = _scores(tallies, seed)
    compared, left = _compared(tallies, [each.model for each in ranked]), _pairs_left(items, counted)
    number = max(len(items.models) * (len(items.models) - 1) // 2, 1)
    sides = tallies.chose_left[tallies.preferring]
    ratings = _ratings(tallies)
    return Result(
        models=items.models,
        prompts=len(items.items),
        pairs=len(items.pairs),
        pairs_judged=len(set(tallies.pair.tolist())),
        equal_answers=items.equal_answers,
        votes=len(tallies),
        votes_elsewhere=len(counted) - len(tallies),
        left_out_judges=tuple(sorted(set(leave_out))),
        win_rates=tuple(_win_rate(tallies, first, second) for first, second in compared),
        scores=ranked,
        decisions=tuple(
            decide(tallies, *models, error=error / number, pairs_left=left[frozenset(models)]) for models in compared
        ),
        alpha_nominal=alpha_interval([nominal for nominal, _ in ratings], categories=4, scale="nominal", seed=seed),
        alpha_ordinal=alpha_interval([ordinal for _, ordinal in ratings], categories=3, scale="ordinal", seed=seed),
        judges=tuple(judge_reports(tallies)),
        left_share=wilson(float(sides.sum()), len(sides)),
        left_probability=binomial_two_sided(int(sides.sum()), len(sides)),
        reasons=_reasons(items, counted),
        thumbs=_thumbs(feedback),
        error=error,
    )


def about(count: int) -> str:
    """A count that is only an estimate, with two figures that mean something."""
    return f"{count if count < 100 else round(count, 2 - len(str(count))):,}"


def wilson(successes: float, number: int) -> Interval:
    """A share with Wilson's interval; without any observation it is all of 0 to 1."""
    return Interval(successes / number if number else 0.5, *wilson_bounds(successes, number))


def _win_rate(tallies: Tallies, first: int, second: int) -> WinRate:
    chosen, score = tallies.between(first, second)
    pairs = len(set(tallies.pair[chosen].tolist()))
    both_bad = int(tallies.both_bad[chosen].sum())
    return WinRate(
        first=tallies.models[first],
        second=tallies.models[second],
        rate=wilson(float((score * tallies.weight[chosen]).sum()), pairs),
        pairs=pairs,
        votes=len(score),
        wins=int((score == 1).sum()),
        losses=int((score == 0).sum()),
        ties=int((score == 0.5).sum()) - both_bad,
        both_bad=both_bad,
    )


def _compared(tallies: Tallies, ranked: Sequence[str]) -> list[tuple[int, int]]:
    """Every two models that were compared, by index, the one of the higher score first."""
    place = {tallies.models.index(model): place for place, model in enumerate(ranked)}
    both = {frozenset((int(a), int(b))) for a, b in zip(tallies.first, tallies.second, strict=True)}
    ordered = [(a, b) if place[a] < place[b] else (b, a) for a, b in both]
    return sorted(ordered, key=lambda models: [place[model] for model in models])


def _pairs_left(items: Items, votes: Sequence[Vote]) -> Counter[frozenset[int]]:
    """For every two models, by index, how many pairs of their answers nobody has judged."""
    judged, index = {vote.pair for vote in votes}, items.models.index
    unseen = (pair for pair in items.pairs.values() if pair.id not in judged)
    return Counter(frozenset((index(pair.first), index(pair.second))) for pair in unseen)


def _scores(tallies: Tallies, seed: int) -> tuple[Score, ...]:
    """The best model first."""
    if len(tallies) == 0:
        return ()
    mine = scores(tallies, seed=seed)
    anew: Sequence[Interval | None] = [None] * len(mine)
    if len(tallies.judges) >= _JUDGES_ANEW:
        anew = scores(tallies, seed=seed, judges_anew=True)
    found = [Score(*each) for each in zip(tallies.models, mine, anew, strict=True)]
    return tuple(sorted(found, key=lambda each: (-each.score.value, each.model)))


def _ratings(tallies: Tallies) -> list[tuple[list[int], list[int]]]:
    """For each pair the votes as four categories, and as an order: second better, tie or both bad, first better."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for pair, score, both_bad in zip(tallies.pair, tallies.score, tallies.both_bad, strict=True):
        nominal, ordinal = found.setdefault(int(pair), ([], []))
        order = int(2 * score)
        ordinal.append(order)
        nominal.append(3 if both_bad else order)
    return list(found.values())


def _reasons(items: Items, votes: Sequence[Vote]) -> dict[str, dict[str, int]]:
    """For each model, how often each reason was given for preferring it."""
    found: dict[str, Counter[str]] = {}
    for vote in votes:
        if vote.pair in items.pairs and vote.winner is not None:
            found.setdefault(vote.winner, Counter()).update(vote.reasons)
    return {model: dict(counts.most_common()) for model, counts in sorted(found.items()) if counts}


def _thumbs(feedback: Sequence[Feedback]) -> tuple[Thumbs, ...]:
    counts: dict[str, Counter[str]] = {}
    for each in feedback:
        counts.setdefault(each.model, Counter())[each.vote] += 1
    return tuple(
        Thumbs(model, count["up"], count["down"], wilson(count["up"], count.total()))
        for model, count in sorted(counts.items())
    )


def _sentence(decision: Decision) -> str:
    first, second = decision.first, decision.second
    if decision.winner is not None:
        loser = second if decision.winner == first else first
        return f"Decided: {decision.winner} is better than {loser}."
    if decision.more_votes is None:
        return f"{first} and {second}: not decided, and more than 5,000 votes away from it: they may well be equal."
    more = decision.more_votes
    votes = "1 more vote on a new pair decides" if more == 1 else f"about {about(more)} more votes on new pairs decide"
    enough = "" if more <= decision.pairs_left else f"; {decision.pairs_left or 'none'} left, so add prompts"
    return f"{first} or {second}: not decided yet; {votes} this if they come as so far{enough}."
