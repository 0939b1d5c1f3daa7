"""Dialogues drawn from a seed, and copies of them that are changed a little."""

import random

_SYLLABLES = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou", "al")]
_CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]


def text(rng: random.Random, *, chinese: bool = False) -> str:
    """Some turns, a line each; words are as unevenly frequent as in speech."""
    turns = []
    for _ in range(rng.randint(2, 8)):
        drawn = [_word(rng, chinese=chinese) for _ in range(rng.randint(5, 25))]
        turns.append(("" if chinese else " ").join(drawn) + ("。" if chinese else "."))
    return "\n".join(turns)


def changed(original: str, rng: random.Random) -> str:
    """The same text with other case and punctuation, a few other words, a turn more, or its end cut off."""
    way = rng.choice(["case", "words", "turn", "cut"])
    if way == "case":
        return original.upper().replace(".", " !!").replace("。", "！")
    if way == "turn":
        return original + "\nok thanks bye"
    if way == "cut":
        return original[: len(original) - len(original) // 20]
    chinese = not original.isascii()
    parts = list(original) if chinese else original.split(" ")
    for _ in range(max(1, len(parts) // 60)):
        parts[rng.randrange(len(parts))] = _word(rng, chinese=chinese)
    return ("" if chinese else " ").join(parts)


def _word(rng: random.Random, *, chinese: bool) -> str:
    number = int(rng.paretovariate(0.7)) % (2000 if chinese else len(_SYLLABLES) ** 2)
    if chinese:
        return _CHARACTERS[number]
    return _SYLLABLES[number % len(_SYLLABLES)] + (_SYLLABLES[number // len(_SYLLABLES)] if number > 99 else "")
