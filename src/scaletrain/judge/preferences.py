"""Votes as preferences to train on, in the conversational format of TRL's DPO trainer.

    {"prompt": [messages], "chosen": [message], "rejected": [message], ...provenance}

What most judges of a pair preferred is chosen; pairs without a majority, and answers that most found both bad, are left
out. Thumbs of a served model give a pair where one answer to the same messages got more of them up and another more
down.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from scaletrain.judge.feedback import Feedback
from scaletrain.judge.items import Items
from scaletrain.judge.votes import Vote


@dataclass(frozen=True)
class Preference:
    """One answer that was preferred to another; `votes` is how the judges voted, `models` whose answers they are."""

    prompt: tuple[Mapping[str, str], ...]
    chosen: str
    rejected: str
    models: Mapping[str, str]
    votes: Mapping[str, int]
    source: str

    def record(self) -> dict[str, object]:
        """The preference as a line of JSON."""
        return {
            "prompt": [dict(message) for message in self.prompt],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "models": dict(self.models),
            "votes": dict(self.votes),
            "source": self.source,
        }


def preferences(items: Items, votes: Sequence[Vote], feedback: Sequence[Feedback] = ()) -> list[Preference]:
    """Every preference, in the order of the items; then those of thumbs."""
    of_pair: defaultdict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        of_pair[vote.pair].append(vote)
    found = []
    for pair in items.pairs.values():
        counts = Counter(
            "neither" if vote.winner is None else vote.winner for vote in of_pair[pair.id] if vote.choice != "both_bad"
        )
        both_bad = len(of_pair[pair.id]) - counts.total()
        ahead = counts[pair.first] - counts[pair.second]
        if ahead == 0 or 2 * both_bad >= len(of_pair[pair.id]):
            continue
        chosen, rejected = (pair.first, pair.second) if ahead > 0 else (pair.second, pair.first)
        found.append(
            Preference(
                prompt=pair.item.messages,
                chosen=pair.item.answers[chosen],
                rejected=pair.item.answers[rejected],
                models={"chosen": chosen, "rejected": rejected},
                votes={
                    "chosen": counts[chosen],
                    "rejected": counts[rejected],
                    "tie": counts["neither"],
                    "both_bad": both_bad,
                },
                source="judge",
            )
        )
    return [*found, *_of_thumbs(feedback)]


def lines(records: Sequence[Mapping[str, object]]) -> bytes:
    """Records as JSON lines."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def _of_thumbs(feedback: Sequence[Feedback]) -> Iterator[Preference]:
    balance: defaultdict[bytes, Counter[tuple[str, str]]] = defaultdict(
        Counter
    )  # by messages: (model, answer) -> up - down
    prompts = {}
    for each in feedback:
        key = orjson.dumps(each.messages)
        prompts[key] = each.messages
        balance[key][each.model, each.answer] += 1 if each.vote == "up" else -1
    for key, answers in balance.items():
        liked = sorted(answer for answer, ahead in answers.items() if ahead > 0)
        disliked = sorted(answer for answer, ahead in answers.items() if ahead < 0)
        for (better, chosen), (worse, rejected) in zip(liked, disliked, strict=False):  # each answer once
            if chosen != rejected:
                yield Preference(
                    prompt=prompts[key],
                    chosen=chosen,
                    rejected=rejected,
                    models={"chosen": better, "rejected": worse},
                    votes={"chosen": answers[better, chosen], "rejected": answers[worse, rejected]},
                    source="feedback",
                )
