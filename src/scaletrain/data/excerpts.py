"""What the report shows of a conversation: its beginning, without personal data; nothing where that was the reason."""

import re
from collections.abc import Iterable

from scaletrain.data.cleaning.personal import mask
from scaletrain.data.conversation import Conversation, Drop

EXCERPT_CHARS = 300
# Whatever cleaning is asked to do, a report that is passed on names no account, and shows no long number.
_ACCOUNT = re.compile(r"(?<![\w@])(?:@|/?u/)\w+")
_NUMBER = re.compile(r"\d{5,}")


def excerpt_of_dropped(conversation: Conversation, drop: Drop) -> str | None:
    """Return the beginning of a conversation as it was when it was dropped; None where it was for personal data."""
    if is_personal(drop.reason) or is_personal(drop.step):
        return None
    return excerpt((turn.role, turn.content) for turn in conversation.turns)


def is_personal(reason: str) -> bool:
    """Say whether a reason or a step is about personal data."""
    return "personal" in reason


def excerpt(turns: Iterable[tuple[str, str]]) -> str:
    """Return the first EXCERPT_CHARS characters of what is said, a line a turn, as `user: ...`."""
    text = ""
    for role, content in turns:
        text += f"{role}: {content[: EXCERPT_CHARS * 2]}\n"
        if len(text) > EXCERPT_CHARS * 2:
            break
    text = masked(text.strip())
    return text if len(text) <= EXCERPT_CHARS else text[: EXCERPT_CHARS - 1] + "…"


def masked(text: str) -> str:
    """Return a text with personal data, names of accounts and long numbers masked."""
    return _NUMBER.sub("<number>", _ACCOUNT.sub("<account>", mask(text)))
