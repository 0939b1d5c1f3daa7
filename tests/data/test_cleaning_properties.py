"""What holds of every step, whatever is said: nothing is lost without a reason, and twice is no more than once."""

import unicodedata

import pytest
from conversations import contents, section, step, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.config_cleaning import PLAIN_STEPS, StepSettings
from scaletrain.data.cleaning import STEPS, clean, load_steps
from scaletrain.data.conversation import Conversation, Drop, Turn, check_validity

NEEDED = {
    "remove_phrases": {"phrases": ["as an AI", "以下是"]},
    "check_profanity": {"words": ["heck", "笨蛋"], "action": "mask"},
    "check_annotations": {"min": {"words": 1}},
}
NAMES = [name for name in STEPS if name != "check_perplexity"]  # which needs a model: test_cleaning_perplexity.py
ALL_STEPS = tuple(name if name in PLAIN_STEPS else {name: NEEDED.get(name, {})} for name in NAMES)
CONTENT_STEPS = [name for name in NAMES if name not in ("drop_empty_turns", "merge_turns")]

PIECES = (
    *("hello there", "as an AI", "heck", "NO", "!!!", "1", ".", "(", ")", "\n", "\n\n\n", "  ", "\t"),
    *("https://a.com/b_(c)?d=1", "www.x.org", "@bob", "u/some_one", "a.b@example.com", "+49 30 1234567", "8.8.44.4"),
    *("4111 1111 1111 1111", "DE89370400440532013000", "<b>bold</b>", "&amp;lt;", "&nbsp;", "<br>", "[a](http://b.c)"),
    *("**x**", "> quoted\n", "```\na  b\n```", "`c  d`", "```", "`", "\u3000", "\u200b", "\u200c", "\u200f", "\ufeff"),
    *("e\u0301", "schÃ¶n", "ＡＢ１", "ｶﾞ", "你好世界", "頭髮", "笨蛋", "東京に", "ไทย", "می\u200cخوام", "مرحبا", "नमस्ते"),
    "👩\u200d👧",
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)
conversations = st.lists(st.tuples(st.sampled_from(("user", "assistant")), texts), min_size=1, max_size=5).map(
    lambda turns: Conversation(tuple(Turn(role, text) for role, text in turns))  # type: ignore[arg-type]
)


@settings(max_examples=150, deadline=None)
@given(conversations)
def test_a_step_changes_turns_or_drops_but_loses_none(conversation: Conversation) -> None:
    """Every step that looks at what is said keeps the turns and who says them, or raises Drop with a reason."""
    for entry in ALL_STEPS:
        name = entry if isinstance(entry, str) else next(iter(entry))
        if name not in CONTENT_STEPS:
            continue
        loaded = load_steps(section(cleaning=("annotate", entry)))[-1]  # without it, there is nothing to check
        try:
            after = loaded(conversation)
        except Drop as drop:
            assert drop.reason
            continue
        assert [turn.role for turn in after.turns] == [turn.role for turn in conversation.turns], name
        if name.startswith(("check_", "drop_", "identify_")) and name != "check_profanity":
            assert after.turns == conversation.turns, name


@settings(max_examples=150, deadline=None)
@given(conversations)
def test_what_all_steps_leave_is_a_valid_conversation(conversation: Conversation) -> None:
    """Cleaned by every step there is, a conversation is fit for training or dropped; it says what changed it."""
    steps = load_steps(section(cleaning=ALL_STEPS))
    try:
        after = clean(conversation, steps)
    except Drop as drop:
        assert drop.reason and drop.step
        return
    assert check_validity(after) == after
    assert set(after.changes) <= set(STEPS)
    assert bool(after.changes) or after.turns == conversation.turns


IDEMPOTENT = [
    "tidy_spaces",
    "drop_empty_turns",
    "merge_turns",
    {"fold_width": {"punctuation": True}},
    {"replace_urls": {"placeholder": "<url>"}},
    {"replace_handles": {"placeholder": "<user>"}},
    {"mask_personal_data": {}},
    {"check_profanity": {"words": ["heck", "笨蛋"], "action": "mask"}},
    {"identify_language": {}},
]


@pytest.mark.parametrize("entry", IDEMPOTENT, ids=lambda entry: entry if isinstance(entry, str) else next(iter(entry)))
@settings(max_examples=200, deadline=None)
@given(conversation=conversations)
def test_twice_is_no_more_than_once(entry: object, conversation: Conversation) -> None:
    """Steps that promise it leave alone what they have made."""
    (loaded,) = load_steps(section(cleaning=(entry,)))
    try:
        once = loaded(conversation)
    except Drop:
        return
    assert loaded(once) == once


# --- Scripts ------------------------------------------------------------------------------------------------------

SCRIPTS = {
    "ja": ("今日はｶﾞﾗｽと「ガラス」の話、ですね！？", "ええ、そうですｗ 〜また明日〜"),
    "ar": ("مَرْحَبًا، كيف حالك؟ \u200f(test)\u200f", "بخيرٍ، شكرًا لك؛ وأنتَ؟"),
    "fa": ("می\u200cخواهم کتاب\u200cها را ببینم، باشه؟", "بله، حتماً می\u200cتوانید «همه» را ببینید."),
    "th": ("สวัสดีครับ วันนี้เป็นอย่างไรบ้าง", "ก็ดีนะ\u200bขอบคุณ ๒๕๖๗ น้ำ"),
    "hi": ("नमस्ते, आप कैसे हैं? क्\u200dष", "मैं ठीक हूँ, धन्यवाद।"),
    "zh": ("你好！（全角）“引号”……今天——怎么样？", "还行，ＡＢＣ１２３。"),
    "he": ("שָׁלוֹם, מה שלומך? \u200eOK\u200e", "טוב, תודה."),
    "mixed": ("Das ist ein schönes 日本語 и русский, oder?", "Ja – c’est très «bon» 👩\u200d👩\u200d👧 हाँ"),
}
KEEPS_ALL = ["fix_unicode", "tidy_spaces", "strip_html", "strip_markup", "replace_urls", "replace_handles", "drop_bots"]
KEEPS_ALL += ["check_repetition", "check_characters", "check_words", "check_balance", "identify_language"]
KEEPS_ALL += ["mask_personal_data", "drop_empty_turns", "merge_turns", "check_length", "annotate"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_step_breaks_a_script(script: str) -> None:
    """Joiners, marks of direction, vowel signs, half-width kana and full-width forms survive all steps together."""
    conversation = talk(*(unicodedata.normalize("NFC", text) for text in SCRIPTS[script]))
    cleaned = clean(conversation, load_steps(section(cleaning=tuple(KEEPS_ALL))))
    assert contents(cleaned) == contents(conversation) and cleaned.changes == ()


def test_only_what_is_asked_for_changes_a_scripts_forms() -> None:
    """Full-width letters and traditional characters change by the steps made for that."""
    assert contents(step("fold_width")(talk(*SCRIPTS["zh"])))[1] == "还行，ABC123。"
    assert set(StepSettings.model_fields) - set(KEEPS_ALL) == {
        "fold_width",
        "remove_phrases",
        "check_profanity",
        "convert_chinese",
        "check_annotations",
        "check_perplexity",
    }
