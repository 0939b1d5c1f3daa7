"""The attempts of a run: which there were, from which step each one went on, and whose commits count.

An attempt is one unbroken stretch of training. Its number is taken by creating a file that nobody else can create,
and is the fencing token in every manifest: once a newer attempt has gone on from some step, what an older one commits
beyond that step does not count, however late it arrives. Everything is told by the names of small files, so that one
listing answers every question:

    attempt-0003.json                 claimed; when, by which process on which machine, with which nonce
    attempt-0003.after-0002           the commit that it went on from was made by attempt 2 (0: there was none)
    attempt-0003.from-00000120        its workers went on from the commit of step 120
    attempt-0003.heartbeat            rewritten every few seconds while its driver lives
    attempt-0003.ended                its driver has seen it end

What is in them says when, for `goodput`; those that an older version wrote say nothing of it. The nonce tells an
attempt from one of the same number, where a run was removed and its name is used again while old processes live.
"""

from scaletrain.attempts.claiming import begin, cause_of, check_claim, check_newest, claim, new_nonce
from scaletrain.attempts.counting import Attempts, read_attempts
from scaletrain.attempts.life import HEARTBEAT_S, Heartbeat, Signs, read_signs, refuse_a_second, shows_life
from scaletrain.attempts.owner import Claim

__all__ = [
    "HEARTBEAT_S",
    "Attempts",
    "Claim",
    "Heartbeat",
    "Signs",
    "begin",
    "cause_of",
    "check_claim",
    "check_newest",
    "claim",
    "new_nonce",
    "read_attempts",
    "read_signs",
    "refuse_a_second",
    "shows_life",
]
