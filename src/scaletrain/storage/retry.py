"""Sending a request again when the store was busy or the network failed, after waits that grow and differ.

The waits are drawn from zero up to a bound that doubles ("full jitter", Brooker 2015, AWS Architecture Blog), so that
many workers that were turned away together do not come back together.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from scaletrain.log import get_logger
from scaletrain.storage.errors import is_transient

ATTEMPTS = 8
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

_Result = TypeVar("_Result")
_log = get_logger(__name__)
_random = random.SystemRandom()  # leaves the generators alone that training is seeded by


def retried(request: Callable[[], _Result]) -> _Result:
    """Send a request until it is answered, up to ATTEMPTS times, with some 11 s (at most 23 s) of waits between them.

    A server that is not there is noticed after 5 s, one that falls silent after 30 s, so that all ends in five minutes.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return request()
        except Exception as error:  # every other error is raised again
            if not is_transient(error):
                raise
            wait_s = _random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt))
            _log.debug("storage: attempt %d failed (%s: %s); again in %.1f s", attempt + 1, type(error), error, wait_s)
        time.sleep(wait_s)
    return request()
