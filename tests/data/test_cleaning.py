import inspect
from functools import partial
from pathlib import Path

import pytest
from conversations import contents, section, talk
from pydantic import ValidationError

from scaletrain.config_cleaning import PLAIN_STEPS, StepSettings, settings_of
from scaletrain.config_file import dump_config, parse_config
from scaletrain.data.cleaning import STEPS, clean, determined_by, drop_empty_turns, fix_unicode, load_steps, merge_turns
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("raw", "fixed"),
    [
        ("schÃ¶n", "schön"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\x00b\x0cc\x9dd", "abcd"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("fish &amp; chips", "fish &amp; chips"),
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


CONFIG = """
name: cleaned
model: {init: random, size: {}}
train: {steps: 1}
data:
  corpora: [{format: messages, source: x.jsonl}]
  cleaning: %s
"""


def problems(cleaning: str) -> tuple[str, ...]:
    """What a configuration with these steps is refused for."""
    with pytest.raises(ConfigError) as error:
        parse_config(CONFIG % cleaning, source="run.yaml")
    return error.value.problems


def test_all_mistakes_in_the_steps_are_listed_with_what_to_do() -> None:
    """Misspelt names, settings and values of all entries at once, each with its number in the list."""
    found = problems(
        "[merge_turn, {identify_languages: {}}, {replace_urls: {placholder: x}}, {check_balance: {max_ratio: 0}}, 7,"
        " check_profanity, {merge_turns: {}}, {fold_width: {}, check_words: {}}, {mask_personal_data: {drop: [fax]}}]"
    )
    assert [line.partition(":")[0] for line in found] == [
        "data.cleaning.0",
        "data.cleaning.1.identify_languages",
        "data.cleaning.2.replace_urls.placholder",
        "data.cleaning.3.check_balance.max_ratio",
        *(f"data.cleaning.{index}" for index in (4, 5, 6, 7)),
        "data.cleaning.8.mask_personal_data.drop.0",
    ]
    hints = ["did you mean merge_turns?", "identify_language?", "replace_urls.placeholder?", "give at least 1"]
    hints += ["a step's name, or {name: {setting: value}}", "needs settings; write {check_profanity: {words: [...]}}"]
    hints += ["merge_turns has no settings here; write its name alone", "one step an entry", "give email, phone"]
    assert [line for line, hint in zip(found, hints, strict=True) if hint not in line] == []


def test_rules_between_the_settings_of_a_step() -> None:
    """Settings that exclude each other are named with the step they belong to."""
    assert problems("[{mask_personal_data: {replace: [email, phone], drop: [phone]}}]") == (
        "data.cleaning.0.mask_personal_data.drop: phone is in replace too; keep it in one of the two",
    )
    (problem,) = problems("[{check_words: {min_mean_length: 9, max_mean_length: 3}}]")
    assert problem.startswith("data.cleaning.0.check_words.min_mean_length: got 9, which is above max_mean_length=3")


def test_steps_with_settings_are_written_and_read_back() -> None:
    """`scaletrain config` shows the settings of a step in full, and no other step's."""
    config = parse_config(CONFIG % "[fix_unicode, {replace_urls: {placeholder: <url>}}]", source="run.yaml")
    dumped = dump_config(config)
    assert "placeholder: <url>" in dumped and "check_balance" not in dumped
    assert parse_config(dumped, source="again.yaml") == config


def test_every_step_takes_what_its_section_says() -> None:
    """The fields of a step's section are its keyword arguments; a step without a section takes none."""
    assert set(STEPS) == {*PLAIN_STEPS, *StepSettings.model_fields}
    for name, function in STEPS.items():
        arguments = {each.name for each in inspect.signature(function).parameters.values()} - {"conversation"}
        settings = settings_of(name)
        expected = set(settings.model_fields) if settings else set()
        assert arguments == ({"min_turns", "min_chars", "max_chars"} if name == "check_length" else expected), name


def test_a_name_alone_stands_for_the_defaults() -> None:
    """`check_words` is `{check_words: {}}`."""
    (by_name,), (by_map,) = (
        load_steps(section(cleaning=("check_words",))),
        load_steps(section(cleaning=({"check_words": {}},))),
    )
    assert isinstance(by_name, partial) and isinstance(by_map, partial)
    assert (by_name.func, by_name.keywords) == (by_map.func, by_map.keywords)
    with pytest.raises(ValidationError, match="did you mean check_words"):
        section(cleaning=("check_word",))


def test_a_step_that_drops_is_named() -> None:
    """Drop.step says which one it was; the rules of a conversation are a step too."""
    with pytest.raises(Drop) as drop:
        clean(talk("Hi"), load_steps(section(cleaning=("check_length",))))
    assert drop.value.step == "check_length"
    with pytest.raises(Drop) as drop:
        clean(talk("Hi"), [])
    assert drop.value.step == "check_validity"


def test_what_is_outside_of_the_settings_counts_for_the_dataset(tmp_path: Path) -> None:
    """The words of a list make another dataset, though its URL is the same."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("heck\n")
    second.write_text("heck\ndarn\n")
    of_lists = [
        determined_by(section(cleaning=({"check_profanity": {"lists": [str(path)]}},))) for path in (first, second)
    ]
    assert of_lists[0] != of_lists[1]


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
