"""How much a key may ask for: requests and tokens a minute, as buckets that fill steadily (a token bucket).

What a request may take at most (its prompt and the longest answers) is set aside when it begins, and what it did not
use is given back at its end: so no number of requests at once gets past the limit.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scaletrain.serve.api_errors import ApiError
from scaletrain.serve.keys import Key


@dataclass
class Charge:
    """What a request has set aside; whoever made it states what it used before it ends."""

    reserved_tokens: int
    used_tokens: int = 0


class Limits:
    """The buckets of every key that has limits; kept in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    @contextmanager
    def charged(self, key: Key | None, *, tokens: int) -> Iterator[Charge]:
        """Set a request and its tokens aside, or raise ApiError 429 that says when to ask again."""
        charge = Charge(tokens)
        requests = self._bucket(key, "requests", key.requests_per_minute if key else None)
        room = self._bucket(key, "tokens", key.tokens_per_minute if key else None)
        if room is not None and tokens > room.per_minute:
            raise ApiError(
                429,
                f"the request may take {tokens} tokens (its prompt and the longest answer), and this key has "
                f"{room.per_minute} a minute; lower max_tokens",
                code="rate_limit_exceeded",
                param="max_tokens",
            )
        for bucket, amount, what in ((requests, 1, "requests"), (room, tokens, "tokens")):
            if bucket is not None and (wait_s := bucket.wait_s(amount)) > 0:
                raise ApiError(
                    429,
                    f"this key has {bucket.per_minute} {what} a minute, and they are used up; ask again in "
                    f"{max(1, round(wait_s))} s",
                    code="rate_limit_exceeded",
                    retry_after_s=wait_s,
                )
        if requests is not None:
            requests.take(1)
        if room is not None:
            room.take(tokens)
        try:
            yield charge
        finally:
            if room is not None:
                room.take(charge.used_tokens - tokens)

    def left(self, key: Key | None) -> int | None:
        """How many tokens a key may take now; None where it has no limit."""
        room = self._bucket(key, "tokens", key.tokens_per_minute if key else None)
        return None if room is None else room.left()

    def _bucket(self, key: Key | None, what: str, per_minute: int | None) -> "_Bucket | None":
        if key is None or per_minute is None:
            return None
        bucket = self._buckets.get((key.id, what))
        if bucket is None or bucket.per_minute != per_minute:
            bucket = self._buckets[key.id, what] = _Bucket(per_minute, self._clock)
        return bucket


class _Bucket:
    """Holds a minute's worth, and fills at that rate."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    def wait_s(self, amount: int) -> float:
        """How long until there is as much; 0 where there is."""
        self._fill()
        return max(0.0, (amount - self._level) * 60 / self.per_minute)

    def left(self) -> int:
        """How much there is now; negative where more was used than set aside."""
        self._fill()
        return int(self._level)

    def take(self, amount: int) -> None:
        """Take, or give back where the amount is negative."""
        self._level = min(self.per_minute, self._level - amount)

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._at) * self.per_minute / 60)
        self._at = now
