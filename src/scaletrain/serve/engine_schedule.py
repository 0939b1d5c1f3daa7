"""Which answers run, and how many tokens of each the next step takes. Knows tokens and room, no model and no thread.

First come, first served: nobody overtakes the one at the head of the queue, so a long prompt waits for room but is
never passed over for ever. A step takes the next token of every answer that runs, and a limited number of prompt
tokens, so that a long prompt does not hold up the others. Room in the cache is reserved as an answer grows; when it is
used up, the answer that came last gives its room back, waits at the head of the queue, and is computed again.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from scaletrain.serve.engine_cache import KeyValueCache, KeyValueStore

_GROWTH_TOKENS = 128


@dataclass(eq=False)
class Running:
    """One answer on its way: the prompt's tokens and its own, and how many there may be at the most."""

    tokens: list[int]
    limit_tokens: int
    adapter: str | None = None
    cancelled: bool = False
    cache: KeyValueCache = field(default_factory=KeyValueCache)

    @property
    def uncached(self) -> int:
        """How many tokens have to be computed before the next one can be chosen."""
        return len(self.tokens) - self.cache.length


AnswerT = TypeVar("AnswerT", bound=Running)


@dataclass(frozen=True)
class Share(Generic[AnswerT]):
    """How many tokens of an answer are computed in a step, and whether its next token is chosen then."""

    answer: AnswerT
    count: int

    @property
    def chooses(self) -> bool:
        """All of its tokens are computed after this step."""
        return self.count == self.answer.uncached


class Schedule(Generic[AnswerT]):
    """The queue, the answers that run (the longest there first), and the room they have."""

    def __init__(self, *, cache_tokens: int, longest: int, max_running: int, prefill_tokens: int) -> None:
        """`longest`: the most tokens of one answer with its prompt, no more than `cache_tokens`."""
        self.cache_tokens = cache_tokens
        self.max_running = max_running
        self.prefill_tokens = prefill_tokens
        self.waiting: deque[AnswerT] = deque()
        self.running: list[AnswerT] = []
        self._store = KeyValueStore(longest=longest)

    @property
    def cached_tokens(self) -> int:
        """Tokens for which there is room now."""
        return sum(answer.cache.capacity for answer in self.running)

    def plan(self) -> list[Share[AnswerT]]:
        """What the next step does; empty where nothing waits or runs."""
        for answer in [answer for answer in self.running if answer.cancelled]:
            self.remove(answer)
        self._admit()
        decoding = [answer for answer in self.running if answer.uncached == 1]
        for answer in decoding:
            if answer in self.running:
                self._make_room(answer)
        shares = [Share(answer, 1) for answer in decoding if answer in self.running]
        return shares + list(self._prefill())

    def remove(self, answer: AnswerT) -> None:
        """Forget an answer that is done or that nobody waits for any more, and free its room."""
        self._store.clear(answer.cache)
        if answer in self.running:
            self.running.remove(answer)
        elif answer in self.waiting:
            self.waiting.remove(answer)

    def clear(self) -> Sequence[AnswerT]:
        """Forget all answers; returns them."""
        answers = [*self.running, *self.waiting]
        for answer in answers:
            self.remove(answer)
        return answers

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_running:
            answer = self.waiting[0]
            wanted = min(answer.limit_tokens, len(answer.tokens) + _GROWTH_TOKENS)
            if self._store.capacity_for(wanted) > self._free():
                return
            self._store.reserve(answer.cache, wanted)
            self.running.append(self.waiting.popleft())

    def _prefill(self) -> Iterator[Share[AnswerT]]:
        left = self.prefill_tokens
        for answer in self.running:
            if answer.uncached > 1 and left > 0:
                count = min(answer.uncached, left)
                left -= count
                yield Share(answer, count)

    def _make_room(self, answer: AnswerT) -> None:
        """Let an answer grow, at the cost of those that came after it, or of itself where it came last."""
        cache, wanted = answer.cache, len(answer.tokens)
        while wanted > cache.capacity and self._store.capacity_for(wanted) - cache.capacity > self._free():
            last = self.running.pop()
            self._store.clear(last.cache)
            self.waiting.appendleft(last)
            if last is answer:
                return
        self._store.reserve(cache, wanted)

    def _free(self) -> int:
        return self.cache_tokens - self.cached_tokens
