"""Steps on turns as a whole: empty ones, consecutive ones, how many and how long, and the system prompt."""

import operator
from dataclasses import replace
from itertools import groupby

from scaletrain.data.conversation import Conversation, Drop, Turn


def drop_empty_turns(conversation: Conversation) -> Conversation:
    """Leave out turns of nothing but white space."""
    turns = tuple([turn for turn in conversation.turns if turn.content.strip()])
    return conversation if len(turns) == len(conversation.turns) else replace(conversation, turns=turns)


def merge_turns(conversation: Conversation) -> Conversation:
    """Join consecutive turns of one role, a line each."""
    roles = [turn.role for turn in conversation.turns]
    if not any(map(operator.eq, roles, roles[1:])):
        return conversation
    turns = tuple(
        Turn(role, "\n".join(turn.content for turn in run))
        for role, run in groupby(conversation.turns, key=lambda turn: turn.role)
    )
    return replace(conversation, turns=turns)


def check_length(conversation: Conversation, *, min_turns: int, min_chars: int, max_chars: int) -> Conversation:
    """Drop what is too short or too long; a system turn does not count as a turn, nor its text."""
    spoken = [turn for turn in conversation.turns if turn.role != "system"]
    num_chars = sum(len(turn.content) for turn in spoken)
    if len(spoken) < min_turns:
        raise Drop("too_few_turns")
    if num_chars < min_chars:
        raise Drop("too_short")
    if num_chars > max_chars:
        raise Drop("too_long")
    return conversation


def add_system_prompt(conversation: Conversation, *, prompt: str) -> Conversation:
    """Put a system turn before a conversation that has none."""
    if any(turn.role == "system" for turn in conversation.turns):
        return conversation
    return replace(conversation, turns=(Turn("system", prompt), *conversation.turns))
