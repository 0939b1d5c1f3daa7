"""Rules of quality, word lists, and Chinese characters."""

from pathlib import Path
from typing import Any

import pytest
from conversations import apply, contents, section, step, talk

from scaletrain.data.cleaning import load_steps
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import ConfigError, StorageError

ENGLISH = (
    "I grew up in a small town near the sea, where my parents had a bakery. Every morning I helped them before school, "
    "and on Sundays we all went fishing together. Later I moved to the city to study, but I still dream of that smell "
    "of fresh bread and salt."
)
CHINESE = (
    "我在海边的一个小镇上长大，父母开了一家面包店。每天早上上学以前我都会帮他们的忙，星期天我们全家一起去钓鱼。"
    "后来我搬到城里读书，但是至今还会梦见新鲜面包和海盐的味道。那里的人都很友好，冬天的时候雪下得特别大。"
)
JAPANESE = (
    "海の近くの小さな町で育ちました。両親はパン屋をやっていて、毎朝学校の前に手伝いました。"
    "日曜日にはみんなで釣りに行きました。"
)
THAI = "ฉันโตมาในเมืองเล็กๆ ริมทะเล พ่อแม่ของฉันเปิดร้านขนมปัง ทุกเช้าก่อนไปโรงเรียนฉันจะช่วยพวกเขา และวันอาทิตย์เราไปตกปลาด้วยกัน"
PERSIAN = "من در شهر کوچکی کنار دریا بزرگ شدم. پدر و مادرم نانوایی داشتند و هر روز صبح پیش از مدرسه به آن‌ها کمک می‌کردم."
HINDI = "मैं समुद्र के पास एक छोटे से शहर में बड़ा हुआ। मेरे माता-पिता की एक बेकरी थी और मैं हर सुबह स्कूल से पहले उनकी मदद करता था।"
GERMAN = (
    "Die Donaudampfschifffahrtsgesellschaft sucht Kapitäne, und meine Schwester überlegt ernsthaft, sich dort zu "
    "bewerben."
)
EVERYDAY = (ENGLISH, CHINESE, JAPANESE, THAI, PERSIAN, HINDI, GERMAN)
RULES = ("check_repetition", "check_characters", "check_words", "check_balance")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("text", EVERYDAY, ids=["en", "zh", "ja", "th", "fa", "hi", "de"])
def test_everyday_text_passes_all_rules(rule: str, text: str) -> None:
    """What people say in any script, short or long, with emoji or code, is no rubbish."""
    rule_step = step(rule)
    for conversation in (
        talk(text, text[:40]),
        talk("Hi", "Hi"),
        talk("OK", text + " 😀😀🎉"),
        talk("How?", f"{text}\n```\nx[0] = {{1: '#'}}\n}}\n}}\n}}\n}}\n```"),
    ):
        assert rule_step(conversation) == conversation


def reason(name: str, conversation: Conversation, **settings: object) -> str:
    """The reason for which a step drops a conversation."""
    with pytest.raises(Drop) as drop:
        step(name, **settings)(conversation)
    return drop.value.reason


@pytest.mark.parametrize(
    ("rule", "conversation", "expected"),
    [
        ("check_repetition", talk("hello?", "hello?", "Hello? "), "repeated_turns"),
        ("check_repetition", talk("Why?", "no\nno\nyes\nno"), "repeated_lines"),
        ("check_repetition", talk("Why?", "you know what I mean, " * 30), "repeated_words"),
        ("check_repetition", talk("为什么", "我觉得这个问题很有意思但是" * 20), "repeated_words"),
        ("check_repetition", talk("ทำไม", "ฉันคิดว่าคำถามนี้น่าสนใจมากแต่" * 20), "repeated_words"),
        ("check_characters", talk("Look", "=#=#=#=#=#=#=#= ok then =#=#=#=#=#=#"), "too_many_symbols"),
        (
            "check_characters",
            talk("Look", "\ufffd\ufffd\ue000 what is this here \ufffd\ufffd\ufffd I ask you"),
            "too_many_symbols",
        ),
        ("check_characters", talk("hello", "?????????????????????????????"), "too_few_letters"),
        ("check_characters", talk("1234567890", "12 34 56 78 90 12 34 56 78 90"), "too_few_letters"),
        ("check_characters", talk("WHY ARE YOU", "SHOUTING AT ME ALL THE TIME, Bob"), "all_caps"),
        ("check_characters", talk("ПОЧЕМУ ТЫ", "КРИЧИШЬ НА МЕНЯ ВСЁ ВРЕМЯ И ВЕЗДЕ"), "all_caps"),
        ("check_words", talk("a b c d e f g h i j k", "l m n o p q r s t u v w"), "odd_word_length"),
        ("check_words", talk("x" * 30, " ".join(["y" * 40] * 25)), "odd_word_length"),
        ("check_balance", talk("tell me", "word " * 400), "one_sided"),
        ("check_balance", talk("word " * 400, "ok"), "one_sided"),
    ],
)
def test_rubbish_is_dropped_for_its_reason(rule: str, conversation: Conversation, expected: str) -> None:
    """Each rule by what it is made for, in scripts with spaces and without."""
    assert reason(rule, conversation) == expected


def test_the_system_prompt_is_not_judged() -> None:
    """It is the same in every conversation, and nobody said it."""
    shouted = load_steps(
        section(cleaning=("check_characters",), system_prompt="DO AS YOU ARE TOLD AND NOTHING MORE!!!")
    )
    prompted = shouted[-1](talk("Hi", "Ho"))
    assert shouted[0](prompted) == prompted


def test_thresholds_can_be_set() -> None:
    """Each limit is a setting of its step."""
    shouted = talk("WHY ARE YOU", "SHOUTING AT ME ALL THE TIME, Bob")
    assert step("check_characters", max_upper=1)(shouted) == shouted
    assert reason("check_balance", talk("Hello, how are you?", "word " * 10), max_ratio=2) == "one_sided"


# --- Word lists ---------------------------------------------------------------------------------------------------


def test_listed_words_are_found_whole_and_in_any_script() -> None:
    """Scunthorpe stays; phrases, inflected scripts with marks and scripts without spaces are found."""
    words = ["cunt", "son of a gun", "笨蛋", "خر", "काम"]
    for text in ("What a CUNT!", "son  of\na gun", "你这个笨蛋吗", "تو خر هستی", "यह काम है"):
        assert reason("check_profanity", talk("Hi", text), words=words) == "profanity"
    innocent = talk("I live in Scunthorpe", "笨的蛋 آخر خرما خر\u200cها कामना cunts sons of a gun")
    assert step("check_profanity", words=words)(innocent) == innocent


def test_a_few_listed_words_may_pass_and_masked_ones_stay_in_place() -> None:
    """max_words counts over the conversation; a mask is as long as what it hides."""
    twice = talk("Damn", "damn it")
    assert step("check_profanity", words=["damn"], max_words=2)(twice) == twice
    assert reason("check_profanity", twice, words=["damn"], max_words=1) == "profanity"
    assert contents(step("check_profanity", words=["damn"], action="mask")(twice)) == ["****", "**** it"]


def test_a_list_is_a_file_of_words_a_line_each(tmp_path: Path) -> None:
    """Comments and blank lines are no words; a list that is not there, or empty, is refused before any work."""
    path = tmp_path / "words.txt"
    path.write_text("# from nowhere\n\nheck\ndarned thing\n", encoding="utf-8")
    assert reason("check_profanity", talk("Hi", "what the heck"), lists=[str(path)]) == "profanity"
    assert apply(step("check_profanity", lists=[str(path)]), "# from nowhere") == "# from nowhere"
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("# nothing\n")
    binary.write_bytes(b"\xff\xfe\x00")
    lists = [str(each) for each in (tmp_path / "gone.txt", empty, binary)]
    for bad, problem in zip(lists, ("gone.txt", "holds no words", "is not UTF-8"), strict=True):
        with pytest.raises((ConfigError, StorageError), match=problem):
            step("check_profanity", lists=[bad])


def test_long_lists_cost_no_more_for_each_text() -> None:
    """Twenty thousand words are one look at the text, not twenty thousand."""
    words = [f"w{number}" for number in range(20_000)]
    check = step("check_profanity", words=words)
    clean_talk = talk("hello there " * 2000, "w19999x " * 2000)
    assert check(clean_talk) == clean_talk
    assert reason("check_profanity", talk("Hi", "x w19999"), words=words) == "profanity"


# --- Chinese characters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "raw", "converted"),
    [
        ({}, "頭髮發展", "头发发展"),
        ({"to": "traditional"}, "头发发展 ABC", "頭髮發展 ABC"),
        ({"to": "taiwan"}, "里面", "裡面"),
        ({}, "مرحبا 안녕 hello", "مرحبا 안녕 hello"),
    ],
)
def test_chinese_is_brought_to_one_script(settings: dict[str, Any], raw: str, converted: str) -> None:
    """By phrases, not character by character: 发 is 髮 in hair, 發 in development."""
    assert apply(step("convert_chinese", **settings), raw) == converted


def test_japanese_keeps_its_characters() -> None:
    """A conversation with kana in it, or known to be in Japanese, is not converted."""
    japanese = talk("発展と頭髪", "國際")
    assert step("convert_chinese")(japanese) == japanese
    assert step("convert_chinese")(talk("國際", "體育", language="ja")).turns[0].content == "國際"
