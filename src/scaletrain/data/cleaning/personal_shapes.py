"""The shapes and check digits of personal data; docs/data.md says in words what each kind is found by.

Check digits: ISO/IEC 7812 (Luhn) for cards, ISO 13616 (modulo 97) for IBANs, GB 11643 (ISO 7064, modulo 11-2) for
Chinese identity cards. Digits of other scripts (۰۱۲, ０１２) count as digits.
"""

import re
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import date
from ipaddress import AddressValueError, IPv6Address


@dataclass(frozen=True)
class Shape:
    """How data of a kind is found: where `pattern` matches and `check` agrees; nowhere in a text without `needed`."""

    needed: re.Pattern[str]
    pattern: re.Pattern[str]
    check: Callable[[str], bool]


_DIGITS = re.compile(r"\d\d")
_EMAIL = re.compile(
    r"(?<![\w.+-])[a-z0-9_](?:[\w.+%-]{0,63}[\w+-])?"
    r"(?:@|\s?[(\[]\s?at\s?[)\]]\s?)(?:[\w-]{1,63}(?:\.|\s?[(\[]\s?dot\s?[)\]]\s?)){1,4}[a-z]{2,24}(?![\w-])",
    re.IGNORECASE | re.ASCII,
)
_API_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"(?s:.{0,8000}?)(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|(?=-----BEGIN )|\Z)"
    r"|(?<=://)[^\s:/@]{1,100}:[^\s/@]{1,100}(?=@)"
    r"|(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|gh[oprsu]_[0-9A-Za-z]{36,255}|github_pat_[0-9A-Za-z_]{60,255}"
    r"|glpat-[0-9A-Za-z_-]{20,64}|sk-(?:ant-|proj-)?[0-9A-Za-z_-]{20,255}|[prs]k_(?:live|test)_[0-9A-Za-z]{20,255}"
    r"|xox[abeprs]-[0-9A-Za-z-]{10,255}|hf_[0-9A-Za-z]{30,64}|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_-]{50,255}"
    r"|SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}"
    r"|eyJ[0-9A-Za-z_-]{10,2000}\.eyJ[0-9A-Za-z_-]{10,4000}\.[0-9A-Za-z_-]{10,1000}"
    r")(?![A-Za-z0-9_])"
)
_CARD = re.compile(
    r"(?<![A-Za-z_\d.+-])(?:\d{4}(?:[ -]\d{4}){3}(?:[ -]\d{3})?|\d{4}[ -]\d{6}[ -]\d{5}|\d{13,19})(?![A-Za-z_\d-])"
)
_CARD_PREFIX = re.compile(r"3[0-9]|4|5[0-9]|6|2(?:2[2-9]|[3-6]|7[01]|720)")
_IP = re.compile(
    r"(?<![\w.-])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w-]|\.\d)"
    r"|(?<![\w:.])(?=[0-9a-f:]*\d)(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])",
    re.IGNORECASE | re.ASCII,
)
_NOBODYS = re.compile(r"0\.0\.0\.0|127\.|255\.255\.")
_US_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])", re.ASCII)
_CHINESE_ID = re.compile(r"(?<![0-9A-Za-z])[1-9]\d{16}[0-9Xx](?![0-9A-Za-z])", re.ASCII)

# Lengths by country: SWIFT's IBAN registry.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT ST",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT",
        32: "LC",
    }.items()
    for country in countries.split()
}
_IBANS = "|".join(rf"{country}\d\d(?: ?[A-Z0-9]){{{length - 4}}}" for country, length in _IBAN_LENGTHS.items())
_IBAN = re.compile(rf"(?<![A-Za-z0-9])(?=[A-Z]{{2}}\d\d)(?:{_IBANS})(?![A-Za-z0-9])")


# The forms of +49 30 1234567 and 0049..., (212) 555-0100, 138 1234 5678, and 030/1234567 or 09121234567.
_GAP = r"[ \u00a0.\-‐-–/]"
_PHONE = re.compile(
    r"(?<![A-Za-z_\d.,+/@#$€£¥-])(?:"
    rf"(?:\+|00)[1-9]\d{{0,2}}(?:{_GAP}{{0,2}}\(?\d{{1,5}}\)?){{2,6}}"
    rf"|(?:1{_GAP})?(?:\([2-9]\d\d\) ?|[2-9]\d\d{_GAP})[2-9]\d\d{_GAP}\d{{4}}"
    r"|1[3-9]\d[ -]?\d{4}[ -]?\d{4}"
    rf"|\(?0[1-9]\d{{0,4}}\)?(?:{_GAP}{{1,2}}\d{{2,8}}){{1,5}}"
    r"|0[1-9]\d{7,9}"
    r")(?![A-Za-z_\d@%]|[.,:/-]\d)"
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d\b")
# Where the digits of a script begin: Arabic, Persian, Devanagari, ... Thai, Lao, Tibetan, Burmese, Khmer, full-width.
_ZEROS = "٠۰०০੦૦୦௦౦೦൦๐໐༠၀០０"
_AS_ASCII = str.maketrans("＋－（）／．＠", "+-()/.@") | {
    ord(zero) + value: str(value) for zero in _ZEROS for value in range(10)
}


def _always(text: str) -> bool:
    return True


def _is_email(text: str) -> bool:
    return not text.startswith("git@")  # as every URL of a repository


def _is_card(text: str) -> bool:
    digits = [int(each) for each in text if each not in " -"]
    if len(set(digits)) < 2 or not _CARD_PREFIX.match(text):
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    text = text.replace(" ", "")
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


def _is_ip_address(text: str) -> bool:
    if ":" not in text:
        return not _NOBODYS.match(text) and len(text) > len("1.2.3.4")  # which numbers a version
    groups = [group for group in text.split(":") if group]
    if len(groups) < 3:  # ::1, and what code writes with two colons
        return False
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _is_chinese_id(text: str) -> bool:
    try:
        date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    remainder = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17])) % 11
    return "10X98765432"[remainder] == text[17].upper()


def _is_phone(text: str) -> bool:
    """Tell a phone number from dates and amounts that look like one."""
    digits = re.sub(r"\D", "", text)
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2 and not _DATE.match(text)


# The most particular kinds first: what they find is not looked at again.
SHAPES = {
    "api_key": Shape(re.compile(r"[0-9A-Za-z_-]{16}|PRIVATE KEY|://[^/\s]+@"), _API_KEY, _always),
    "email": Shape(re.compile(r"@|[(\[] ?at"), _EMAIL, _is_email),
    "iban": Shape(_DIGITS, _IBAN, _is_iban),
    "chinese_id": Shape(_DIGITS, _CHINESE_ID, _is_chinese_id),
    "card": Shape(_DIGITS, _CARD, _is_card),
    "ip_address": Shape(_DIGITS, _IP, _is_ip_address),
    "us_ssn": Shape(_DIGITS, _US_SSN, _always),
    "phone": Shape(_DIGITS, _PHONE, _is_phone),
}


def find_shapes(text: str, kinds: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, end) for all data of some kinds, in order; what two kinds claim, the first in SHAPES has."""
    if not text.isascii():
        text = text.translate(_AS_ASCII)  # one character for one
    found: list[tuple[int, int, str]] = []
    has_digits = _DIGITS.search(text) is not None
    for kind, shape in SHAPES.items():
        if kind not in kinds or not (has_digits if shape.needed is _DIGITS else shape.needed.search(text)):
            continue
        for match in shape.pattern.finditer(text):
            place = bisect_left(found, (match.end(),))  # of what begins before, the last ends last
            if shape.check(match.group()) and (place == 0 or found[place - 1][1] <= match.start()):
                insort(found, (*match.span(), kind))
    return ((kind, start, end) for start, end, kind in found)
