"""ngrams: units of any script, and hashes of their runs."""

from hypothesis import given
from hypothesis import strategies as st

from scaletrain.data.ngrams import count_unspaced, hash_ngrams, hash_units, units


def test_units_are_words_or_characters_by_script() -> None:
    """Words where spaces part them, characters where none do, in mixed text too; case and punctuation are nothing."""
    assert units("Hello, WORLD! It's 2026.") == ["hello", "world", "it", "s", "2026"]
    assert units("你好，世界！") == ["你", "好", "世", "界"]
    assert units("GPT是模型 v2") == ["gpt", "是", "模", "型", "v2"]
    assert units("これはペンです") == list("これはペンです")
    assert units("안녕 세상") == ["안녕", "세상"]
    assert len(units("สวัสดี")) == 6
    assert units("👋 ... !?") == []
    assert count_unspaced(units("GPT是模型 v2")) == 3


def test_vowel_signs_do_not_split_words() -> None:
    """Accents and signs that are characters of their own belong to their word."""
    assert units("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert units("cafe\u0301 noir") == ["cafe\u0301", "noir"]
    assert units("مُحَمَّد علي") == ["مُحَمَّد", "علي"]


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.integers(1, 6))
def test_equal_runs_have_equal_hashes_wherever_they_are(words: list[str], n: int) -> None:
    """A run's hash depends on its units and their order, not on its place."""
    hashes = hash_ngrams(hash_units(words), n).tolist()
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(hashes) == len(runs)
    assert len(set(hashes)) == len(set(runs)) == len(set(zip(runs, hashes, strict=True)))
