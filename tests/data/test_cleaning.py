from pathlib import Path

import pytest

from scaletrain.config import Corpus, DataSection
from scaletrain.data.cleaning import clean, drop_empty_turns, fix_unicode, load_steps, merge_turns
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.errors import ConfigError, DataError


def section(**settings: object) -> DataSection:
    return DataSection(corpora=(Corpus(format="messages", source="x.jsonl"),), **settings)  # type: ignore[arg-type]


def talk(*contents: str) -> Conversation:
    """User and assistant in turn."""
    return Conversation(tuple(Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)))


def contents(conversation: Conversation) -> list[str]:
    return [turn.content for turn in conversation.turns]


@pytest.mark.parametrize(
    ("raw", "fixed"),
    [
        ("schÃ¶n", "schön"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\x00b\x0cc\x9dd", "abcd"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("fish &amp; chips", "fish & chips"),
        ("“curly” ﬁne", "“curly” ﬁne"),
        ("你好！（ＡＢＣ）", "你好！（ＡＢＣ）"),
        ("👩\u200d👩\u200d👧 فا\u200cرسی", "👩\u200d👩\u200d👧 فا\u200cرسی"),
    ],
)
def test_fix_unicode_repairs_damage_and_keeps_style(raw: str, fixed: str) -> None:
    """Mojibake, decomposed letters and control characters go; quotes, full-width forms and joiners stay."""
    assert contents(fix_unicode(talk(raw))) == [fixed]


def test_empty_turns_go_and_their_neighbours_merge() -> None:
    """An empty answer leaves two turns of the user, which become one."""
    conversation = merge_turns(drop_empty_turns(talk("Hi", " \n", "Anyone?", "Yes")))
    assert conversation.turns == (Turn("user", "Hi\nAnyone?"), Turn("assistant", "Yes"))


@pytest.mark.parametrize(
    ("settings", "conversation", "reason"),
    [
        ({"min_turns": 3}, talk("Hi", "Ho"), "too_few_turns"),
        ({"min_chars": 5}, talk("Hi", "Ho"), "too_short"),
        ({"max_chars": 3}, talk("Hi", "Ho"), "too_long"),
    ],
)
def test_lengths_out_of_bounds_are_dropped(settings: dict[str, int], conversation: Conversation, reason: str) -> None:
    """Each limit of the data section has its reason."""
    with pytest.raises(Drop) as drop:
        clean(conversation, load_steps(section(**settings)))
    assert drop.value.reason == reason


def test_limits_do_not_count_the_system_turn() -> None:
    """A system turn is no turn of the conversation."""
    conversation = Conversation((Turn("system", "Be kind."), *talk("Hi", "Ho").turns))
    assert clean(conversation, load_steps(section(min_turns=2, max_chars=4))) == conversation


def test_the_rules_hold_whatever_the_steps() -> None:
    """Without cleaning, an invalid conversation is still dropped."""
    with pytest.raises(Drop, match="empty_turn"):
        clean(talk("Hi", ""), load_steps(section(cleaning=())))


def test_a_system_prompt_goes_before_conversations_that_have_none() -> None:
    """data.system_prompt does not replace a conversation's own."""
    steps = load_steps(section(system_prompt="Be brief."))
    own = Conversation((Turn("system", "Be kind."), *talk("Hi", "Ho").turns))
    assert clean(talk("Hi", "Ho"), steps).turns[0] == Turn("system", "Be brief.")
    assert clean(own, steps) == own


def test_an_unknown_step_is_refused_with_a_hint() -> None:
    """A misspelt step names its neighbour."""
    with pytest.raises(ConfigError, match="did you mean merge_turns"):
        load_steps(section(cleaning=("merge_turn",)))


@pytest.fixture
def user_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working directory."""
    (tmp_path / "their_steps.py").write_text(
        "from dataclasses import replace\n"
        "from scaletrain.data.conversation import Drop, Turn\n"
        "def shout(conversation):\n"
        "    return replace(conversation, turns=tuple(Turn(t.role, t.content.upper()) for t in conversation.turns))\n"
        "def refuse(conversation):\n"
        "    raise Drop('not_nice')\n"
        "def broken(conversation):\n"
        "    return conversation.no_such_thing\n"
        "def forgetful(conversation):\n"
        "    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return "their_steps"


def test_a_users_own_step_is_applied(user_steps: str) -> None:
    """my_package.module:function is found in the working directory, and may change or drop."""
    assert contents(clean(talk("Hi", "Ho"), load_steps(section(cleaning=(f"{user_steps}:shout",))))) == ["HI", "HO"]
    with pytest.raises(Drop, match="not_nice"):
        clean(talk("Hi", "Ho"), load_steps(section(cleaning=(f"{user_steps}:refuse",))))


def test_a_users_broken_step_is_named(user_steps: str) -> None:
    """An exception in a step names the step and the conversation; a forgotten return is a wrong configuration."""
    conversation = Conversation(talk("Hi", "Ho").turns, source="dump.jsonl:7")
    with pytest.raises(DataError, match=r"broken failed on dump\.jsonl:7: AttributeError"):
        clean(conversation, load_steps(section(cleaning=(f"{user_steps}:broken",))))
    with pytest.raises(ConfigError, match="forgetful returned NoneType"):
        clean(conversation, load_steps(section(cleaning=(f"{user_steps}:forgetful",))))
    with pytest.raises(ConfigError, match="no function 'missing'"):
        load_steps(section(cleaning=(f"{user_steps}:missing",)))
    with pytest.raises(ConfigError, match="importing no_such_module failed"):
        load_steps(section(cleaning=("no_such_module:step",)))
