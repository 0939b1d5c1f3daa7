"""One judging: who may vote, what each is shown, which votes are taken; of HTTP it knows the error codes alone."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from scaletrain.judge.dealing import Dealer
from scaletrain.judge.items import Items, LivePair, Pair
from scaletrain.judge.live import Duel, LiveSetting, draw
from scaletrain.judge.names import judge_name, judge_token
from scaletrain.judge.vote_store import VoteStore
from scaletrain.judge.votes import CHOICES, Vote

REASONS = ("correct", "helpful", "fluent", "on topic", "complete", "brief", "polite", "safe")
LONGEST_NOTE = 4000
LONGEST_QUESTION = 8000
_LONGEST_S = 24 * 3600.0


class Refused(Exception):
    """A request that is answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass
class Judging:
    """What one server serves, and what it has to remember. Thread-safe.

    `judges` are those who may vote, each with a link; empty: whoever gives a name. With `live`, judges may ask models
    themselves once there is nothing prepared left for them.
    """

    items: Items
    store: VoteStore
    dealer: Dealer
    judges: tuple[str, ...] = ()
    reasons: tuple[str, ...] = REASONS
    question: str = "Which answer is better?"
    live: LiveSetting | None = None
    asking: set[str] = field(default_factory=set)  # judges whose question is being answered now

    def __post_init__(self) -> None:
        self._prepared = {self.public_name(pair.id): pair for pair in self.items.pairs.values()}
        self._live = {self.public_name(each.pair.id): each for each in self.store.live()}

    def public_name(self, pair: str) -> str:
        """The name of a pair on the page: it tells nothing, not even to who knows the answers."""
        return hmac.new(self.store.secret, f"pair {pair}".encode(), hashlib.sha256).hexdigest()[:24]

    def pair_named(self, public_name: str) -> Pair:
        """The pair behind a name on the page."""
        if public_name in self._live:
            return self._live[public_name].pair
        if (pair := self._prepared.get(public_name)) is None:
            raise Refused(404, "this pair is not among what is judged now: load the page again")
        return pair

    def judge_of(self, authorization: str, name: str) -> str:
        """Who asks: by the token of their link, or by the name they gave where no tokens were made."""
        if not self.judges:
            try:
                return judge_name(unquote(name))
            except ValueError as exc:
                raise Refused(401, str(exc)) from exc
        token = authorization.removeprefix("Bearer ").strip().encode()
        for judge in self.judges:
            if hmac.compare_digest(judge_token(self.store.secret, judge).encode(), token):
                return judge
        raise Refused(401, "this needs a judge's own link: ask whoever invited you for yours")

    def next_for(self, judge: str) -> dict[str, object]:
        """What the page shows next, and how far it all is."""
        judged = self.store.judged()
        pair_id = self.dealer.next_pair(judge, judged)
        shown = None if pair_id is None else self._shown(judge, self.items.pairs[pair_id])
        return {
            "judge": judge,
            "pair": shown,
            "may_ask": shown is None and self.live is not None,
            "progress": self._progress(judge, judged),
        }

    def judged_before(self, judge: str, public_name: str) -> dict[str, object]:
        """A pair with the judge's vote on it."""
        pair = self.pair_named(public_name)
        vote = self.store.vote_of(judge, pair.id)
        said = None if vote is None else {"choice": vote.choice, "reasons": vote.reasons, "note": vote.note}
        progress = self._progress(judge, self.store.judged())
        return {"judge": judge, "pair": self._shown(judge, pair), "vote": said, "progress": progress}

    def duel(self, judge: str, body: Any) -> Duel:
        """Whom a judge's own question goes to; raises Refused where it cannot be asked."""
        if self.live is None:
            raise Refused(404, "questions of one's own are not asked here")
        question = body.get("question") if isinstance(body, dict) else None
        if not isinstance(question, str) or not question.strip() or len(question) > LONGEST_QUESTION:
            raise Refused(400, f'"question" has to be a text of 1 to {LONGEST_QUESTION} characters')
        if judge in self.asking:
            raise Refused(429, "another question of yours is being answered: wait until it is")
        return draw(self.live, judge, question.strip())

    def keep_asked(self, asked: LivePair) -> str:
        """Keep a question with its answers; returns its name on the page, by which it is voted on."""
        self.store.add_live(asked)
        name = self.public_name(asked.pair.id)
        self._live[name] = asked
        return name

    def take(self, judge: str, body: Any) -> None:
        """Keep a vote; raises Refused with all that is wrong with it."""
        if problems := self._problems(body):
            raise Refused(400, "; ".join(problems))
        pair = self.pair_named(body["pair"])
        left, right = self._sides(judge, pair)
        self.store.save(
            Vote(
                judge=judge,
                pair=pair.id,
                item=pair.item.id,
                left=left,
                right=right,
                choice=body["choice"],
                reasons=tuple(dict.fromkeys(body.get("reasons", ()))),
                note=body.get("note", "").strip(),
                seconds=min(max(float(body.get("seconds", 0)), 0.0), _LONGEST_S),
            )
        )

    def _problems(self, body: Any) -> list[str]:
        if not isinstance(body, dict):
            return ["a vote is a JSON object"]
        reasons, note, seconds = body.get("reasons", []), body.get("note", ""), body.get("seconds", 0)
        rules = {
            '"pair" has to be the name of a pair': isinstance(body.get("pair"), str),
            f'"choice" has to be one of {", ".join(CHOICES)}': body.get("choice") in CHOICES,
            f'"reasons" has to be a list from {", ".join(self.reasons)}': isinstance(reasons, list)
            and all(reason in self.reasons for reason in reasons),
            f'"note" has to be a text of at most {LONGEST_NOTE} characters': isinstance(note, str)
            and len(note) <= LONGEST_NOTE,
            '"seconds" has to be a number': isinstance(seconds, (int, float)) and not isinstance(seconds, bool),
        }
        return [rule for rule, kept in rules.items() if not kept]

    def _shown(self, judge: str, pair: Pair) -> dict[str, object]:
        left, right = self._sides(judge, pair)
        answers = pair.item.answers
        messages = [dict(message) for message in pair.item.messages]
        return {
            "name": self.public_name(pair.id),
            "messages": messages,
            "left": answers[left].strip(),
            "right": answers[right].strip(),
        }

    def _sides(self, judge: str, pair: Pair) -> tuple[str, str]:
        """The models on the left and on the right."""
        if (asked := self._live.get(self.public_name(pair.id))) is not None:
            return asked.left, asked.right
        if self.dealer.first_is_left(judge, pair.id):
            return pair.first, pair.second
        return pair.second, pair.first

    def _progress(self, judge: str, judged: list[tuple[str, str]]) -> Mapping[str, int]:
        progress = asdict(self.dealer.progress(judge, judged))
        asked = {each.pair.id for each in list(self._live.values())}  # another thread may add to them
        return {**progress, "mine": progress["mine"] + sum(who == judge and pair in asked for who, pair in judged)}
