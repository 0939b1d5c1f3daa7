"""Personal data planted in sentences, and sentences with what only looks like it; all of it made up from a seed."""

import random
from collections.abc import Callable
from datetime import date, timedelta

_SENTENCES = (
    "you can reach me at {} any time",
    "my old one was {}, I think",
    "{} is what I wrote down",
    "please send it to {}. Thanks!",
    "联系我：{}，谢谢",
    "schreib mir an {}!",
    "این را یادداشت کن: {} ممنون",
    "here it is ({}) for the record",
)
_NAMES = ("anna", "bob.smith", "li-wei", "maria_garcia", "k.nakamura", "x99")
_DOMAINS = ("example.com", "mail.example.co.uk", "firma.example.de", "uni-x.example.edu")
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"


def planted(kind: str, *, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return (sentence, value) pairs with a valid value of a kind."""
    rng = random.Random(f"{kind} {seed}")
    values = [_MAKERS[kind](rng) for _ in range(count)]
    return [(rng.choice(_SENTENCES).format(value), value) for value in values]


def lookalikes(*, count: int, seed: int = 0) -> list[str]:
    """Return sentences with dates, amounts, versions, codes and numbers whose check digits are wrong."""
    rng = random.Random(f"lookalikes {seed}")
    return [rng.choice(_SENTENCES).format(rng.choice(_LOOKALIKES)(rng)) for _ in range(count)]


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _email(rng: random.Random) -> str:
    address = f"{rng.choice(_NAMES)}{rng.randrange(99)}@{rng.choice(_DOMAINS)}"
    return address.replace("@", " (at) ").replace(".", " (dot) ") if rng.random() < 0.1 and "." in address else address


def _phone(rng: random.Random) -> str:
    d = lambda count: _digits(rng, count)  # noqa: E731
    return rng.choice(
        (
            lambda: f"+49 {rng.choice(('30', '89', '151'))} {rng.randrange(2, 10)}{d(6)}",
            lambda: f"+1{rng.choice('- .')}{rng.randrange(200, 999)}-{rng.randrange(200, 999)}-{d(4)}",
            lambda: f"({rng.randrange(200, 999)}) {rng.randrange(200, 999)}-{d(4)}",
            lambda: f"1{rng.choice('3456789')}{d(9)}",
            lambda: f"1{rng.choice('3456789')}{d(1)} {d(4)} {d(4)}",
            lambda: f"0{rng.choice(('30', '221', '7700'))}/{rng.randrange(1, 9)}{d(6)}",
            lambda: f"06 {d(2)} {d(2)} {d(2)} {d(2)}",
            lambda: f"090-{d(4)}-{d(4)}",
            lambda: "".join("۰۱۲۳۴۵۶۷۸۹"[int(each)] for each in f"0912{d(7)}"),
            lambda: f"0044 7{d(3)} {d(6)}",
        )
    )()


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice((("4", 16), ("51", 16), ("37", 15), ("6011", 16), ("2221", 16), ("62", 19)))
    number = _with_luhn(prefix + _digits(rng, length - len(prefix) - 1))
    if length == 16 and rng.random() < 0.6:
        return rng.choice(" -").join(number[i : i + 4] for i in range(0, 16, 4))
    return number


def _with_luhn(number: str) -> str:
    total = sum(int(each) if index % 2 else sum(divmod(2 * int(each), 10)) for index, each in enumerate(number[::-1]))
    return f"{number}{-total % 10}"


def _iban(rng: random.Random) -> str:
    country, bank, length = rng.choice((("DE", "", 22), ("GB", "WEST", 22), ("FR", "", 27), ("NL", "ABNA", 18)))
    account = bank + _digits(rng, length - 4 - len(bank))
    remainder = int("".join(str(int(each, 36)) for each in f"{account}{country}00")) % 97
    iban = f"{country}{98 - remainder:02}{account}"
    return " ".join(iban[i : i + 4] for i in range(0, length, 4)) if rng.random() < 0.5 else iban


def _ip_address(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return ":".join(f"{rng.randrange(16**4):x}" for _ in range(8))
    return ".".join(str(rng.randrange(*bounds)) for bounds in ((11, 127), (0, 256), (0, 256), (1, 256)))


def _us_ssn(rng: random.Random) -> str:
    return (
        f"{rng.choice((*range(1, 666), *range(667, 900))):03}-{rng.randrange(1, 100):02}-{rng.randrange(1, 10000):04}"
    )


def _chinese_id(rng: random.Random) -> str:
    born = date(1940, 1, 1) + timedelta(days=rng.randrange(25_000))
    number = f"{rng.randrange(11, 66)}{_digits(rng, 4)}{born:%Y%m%d}{_digits(rng, 3)}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return number + "10X98765432"[sum(int(each) * weight for each, weight in zip(number, weights, strict=True)) % 11]


def _api_key(rng: random.Random) -> str:
    random_text = "".join(rng.choice(_LETTERS) for _ in range(60))
    forms = (f"AKIA{random_text[:16].upper()}", f"ghp_{random_text[:36]}", f"sk-{random_text[:48]}")
    return rng.choice(
        (*forms, f"xoxb-{_digits(rng, 12)}-{random_text[:24]}", f"AIza{random_text[:35]}", f"hf_{random_text[:34]}")
    )


_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "ip_address": _ip_address,
    "us_ssn": _us_ssn,
    "chinese_id": _chinese_id,
    "api_key": _api_key,
}
_LOOKALIKES: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: f"{rng.randrange(1900, 2030)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02} 10:30:00",
    lambda rng: f"{rng.randrange(1, 29):02}.{rng.randrange(1, 13):02}.{rng.randrange(1900, 2030)} 08:15",
    lambda rng: f"{rng.randrange(1, 13)}/{rng.randrange(1, 29)}/{rng.randrange(1900, 2030)}",
    lambda rng: f"{rng.randrange(1, 999)},{_digits(rng, 3)},{_digits(rng, 3)}.{_digits(rng, 2)}",
    lambda rng: f"${_digits(rng, 3)},{_digits(rng, 3)}",
    lambda rng: f"{rng.randrange(1800, 2000)}-{rng.randrange(2000, 2030)}",
    lambda rng: f"version {rng.randrange(9)}.{rng.randrange(9)}.{rng.randrange(9)}",
    lambda rng: f"ISBN 978-3-16-14{_digits(rng, 4)}-{rng.randrange(10)}",
    lambda rng: f"order #{_digits(rng, 7)}",
    lambda rng: f"3.14159{_digits(rng, 12)}",
    lambda rng: f"4{int(_with_luhn('4' + _digits(rng, 14))) + 1}"[1:],
    lambda rng: f"{rng.randrange(300, 999)}.{rng.randrange(300, 999)}.{rng.randrange(300, 999)}.{rng.randrange(99)}",
    lambda rng: f"std::vector at {rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}",
    lambda rng: f"@{rng.choice(_NAMES)} on 3.5.{rng.randrange(10)}",
    lambda rng: f"room {rng.randrange(1, 999)}, {_digits(rng, 5)} Berlin",
    lambda rng: f"{_digits(rng, 1)}:{_digits(rng, 2)} against {_digits(rng, 2)}:{_digits(rng, 2)}",
)
