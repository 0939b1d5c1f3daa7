"""The step on personal data: replaced by a placeholder, or the conversation dropped; and the mask itself."""

from collections.abc import Collection

from scaletrain.config_cleaning import PersonalKind
from scaletrain.data.cleaning.contents import change_contents
from scaletrain.data.cleaning.people import find_names
from scaletrain.data.cleaning.personal_shapes import SHAPES, find_shapes
from scaletrain.data.conversation import Conversation, Drop


def mask_personal_data(
    conversation: Conversation, *, replace: tuple[PersonalKind, ...], drop: tuple[PersonalKind, ...], name_model: str
) -> Conversation:
    """Replace personal data of some kinds by <email>, <phone> and so on; drop what holds data of another kind."""
    for turn in conversation.turns:
        for kind, _, _ in find_shapes(turn.content, drop):
            raise Drop("personal_data", kind)
        if "name" in drop and find_names(turn.content, model=name_model, language=conversation.language):
            raise Drop("personal_data", "name")

    def masked(text: str) -> str:
        text = mask(text, replace)
        if "name" in replace:  # last: the model reads what is around a name
            names = find_names(text, model=name_model, language=conversation.language)
            text = _replace_spans(text, [("name", *span) for span in names])
        return text

    return change_contents(conversation, masked)


def mask(text: str, kinds: Collection[str] = tuple(SHAPES)) -> str:
    """Replace personal data of some kinds, by default all but names, by placeholders as <email>."""
    while spans := list(find_shapes(text, kinds)):  # again, for what stood too close to what is gone now
        text = _replace_spans(text, spans)
    return text


def _replace_spans(text: str, spans: list[tuple[str, int, int]]) -> str:
    """Put <kind> in place of each (kind, start, end), which are in order and apart."""
    parts: list[str] = []
    position = 0
    for kind, start, end in spans:
        parts += [text[position:start], f"<{kind}>"]
        position = end
    return "".join(parts) + text[position:]
