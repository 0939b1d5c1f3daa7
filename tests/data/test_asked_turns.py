import re
from pathlib import Path

import pytest
import trl
from byte_tokenizer import make_byte_tokenizer
from transformers import PreTrainedTokenizerFast

from scaletrain.data.chat_template import encode
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.rendering import Rendered
from scaletrain.data.turn_spans import render_all
from scaletrain.errors import DataError
from scaletrain.model.prompt import end_of_turn
from scaletrain.model.template_defaults import with_thinking
from scaletrain.template_dates import with_fixed_date

# The templates of models as they are published; TRL keeps them to know the models by. Of some it has others to train
# with, which mark what an assistant says.
TEMPLATES = {path.stem: path.read_text() for path in sorted((Path(trl.__file__).parent / "chat_templates").iterdir())}
PUBLISHED = {name: text for name, text in TEMPLATES.items() if name != "README" and "_training" not in name}
MARKED_ALIKE = ("cohere", "cohere2", "gemma", "gemma3", "lfm2", "llama3", "qwen2_5", "qwen3_instruct_2507", "qwen3_vl")
IN_PARTS = ("idefics3", "llava_next", "smolvlm")  # contents are lists of images and texts
REWRITTEN = ("qwen3", "qwen3_5_think", "gptoss", "phi3", "deepseek_r1_distill", "nemotron_3_nano", "glm4moe")
WITHOUT_SYSTEM_TURNS = ("gemma",)


def published(name: str, *, thinking: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with a published template and the tokens that are written in it."""
    chat_template = PUBLISHED[name]
    tokenizer = make_byte_tokenizer(chat_template=with_thinking(chat_template, thinking=thinking))
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    marks = sorted(
        set(re.findall(r"<[|｜][^<>{}'|｜]+[|｜]>|<(?:end_of|start_of)_turn>|<turn\|>|<\|turn>", chat_template))
    )
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    return tokenizer


def talk(*contents: str, system: str | None = None) -> Conversation:
    turns = [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(contents)]
    return Conversation((*([Turn("system", system)] if system is not None else []), *turns))


def rendered(conversation: Conversation, tokenizer: PreTrainedTokenizerFast) -> Rendered:
    [found] = render_all([conversation], tokenizer)
    assert isinstance(found, Rendered), found
    return found


def prompt_for(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerFast) -> str:
    """What serving asks the model with."""
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **with_fixed_date(str(tokenizer.chat_template))
    )


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in IN_PARTS])
@pytest.mark.parametrize("exchanges", [1, 3])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_each_answer_stands_behind_the_prompt_for_it(name: str, exchanges: int, system: str | None) -> None:
    """As the model is asked in chat, and with the token that ends the answer there."""
    tokenizer = published(name)
    said = [text for number in range(exchanges) for text in (f"Question {number}?", f"Answer {number}.")]
    conversation = talk(*said, system=system)
    [found] = render_all([conversation], tokenizer)
    if system is not None and name in WITHOUT_SYSTEM_TURNS:
        assert isinstance(found, Drop) and found.reason == "refused_by_chat_template"
        return
    assert isinstance(found, Rendered), found
    messages, first = conversation.messages(), int(system is not None)
    prompt = prompt_for(messages[: first + 1], tokenizer)
    assert found.text[: found.spans[1].spoken] == prompt
    for number in range(exchanges):
        question, answer = found.spans[2 * number : 2 * number + 2]
        prompt = prompt_for(messages[: first + 2 * number + 1], tokenizer)
        asked = found.text[question.start : answer.spoken].rpartition(said[2 * number])[2]
        assert asked == prompt.rpartition(said[2 * number])[2]
        assert said[2 * number + 1] in found.text[answer.spoken : answer.stop]
    encoded = encode(conversation, tokenizer)
    assert encoded.input_ids[encoded.supervised].tolist().count(end_of_turn(tokenizer)) == exchanges


@pytest.mark.parametrize("name", MARKED_ALIKE)
def test_what_is_learned_is_what_trl_marks(name: str) -> None:
    """But for white space after the end of a turn. (Of other templates TRL learns prompts or marks of thinking too.)"""
    tokenizer, conversation = published(name), talk("Is it?", "Yes.", "Sure?", "Yes, sure.")
    encoded = encode(conversation, tokenizer)
    theirs = tokenizer.apply_chat_template(
        conversation.messages(),
        chat_template=TEMPLATES[f"{name}_training"],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = [each for each, learned in zip(theirs["input_ids"], theirs["assistant_masks"], strict=True) if learned]
    ours = tokenizer.decode(encoded.input_ids[encoded.supervised])
    assert "Yes, sure." in ours
    assert "".join(tokenizer.decode(marked).split()) == "".join(ours.split())


def test_thoughts_are_left_out_unless_they_are_trained() -> None:
    """A template that knows thinking asks for an answer without, in every turn; told otherwise, it asks for both."""
    expected = "<|im_start|>assistant\n<think>\n\n</think>\n\nYes.<|im_end|>\n"
    text = rendered(talk("Is it?", "Yes.", "Sure?", "Yes."), published("qwen3")).text
    assert text.count(expected) == 2
    thoughtful = talk("Is it?", "<think>\nIt may be.\n</think>\n\nYes.")
    found = rendered(thoughtful, published("qwen3", thinking=True))
    answer = found.spans[1]
    assert found.text[answer.spoken : answer.stop] == "<think>\nIt may be.\n</think>\n\nYes.<|im_end|>\n"


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_a_template_makes_of_a_text_is_compared(name: str) -> None:
    """A conversation whose words it changes is left out alone, with the reason, not trained on otherwise."""
    tokenizer = published(name)
    plain = talk("Is it?", "Yes.", "Sure?", "Yes, sure.")
    thoughtful = talk("Is it?", "<think>\nWell.\n</think>\n\nYes.", "Sure?", "<think>\nOh.\n</think>\n\nYes, sure.")
    kept, other, again = render_all([plain, thoughtful, plain], tokenizer)
    assert isinstance(kept, Rendered) and kept == again
    if name in ("gptoss", "phi3"):  # which print it all
        assert isinstance(other, Rendered) and "Well." in other.text
    else:
        assert isinstance(other, Drop) and other.reason == "changed_by_chat_template"


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_last_question_without_an_answer_is_left_out(name: str) -> None:
    """The template would write the answer before it otherwise than it was asked for."""
    tokenizer = published(name)
    asked = talk("Is it?", "Yes.", "Sure?", "Yes, sure.", "Why?")
    with_question, without = (encode(each, tokenizer) for each in (asked, Conversation(asked.turns[:-1])))
    learned = without.input_ids[without.supervised].tolist()
    assert with_question.input_ids[with_question.supervised].tolist() == learned


@pytest.mark.parametrize("name", IN_PARTS)
def test_a_template_that_leaves_texts_out_teaches_nothing(name: str) -> None:
    """Empty answers would be learned from; the conversation is dropped instead, with the reason."""
    [found] = render_all([talk("Is it?", "Yes.")], published(name))
    assert isinstance(found, Drop)
    assert found.reason == ("refused_by_chat_template" if name == "llava_next" else "changed_by_chat_template")


def test_a_template_that_moves_the_system_turn_is_refused() -> None:
    """Mistral's puts it before the last question, so that no question stands where it was asked."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {% if loop.last or loop.index0 == messages | length"
        " - 2 %}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}{% endif %}"
        "{{ m['content'] }}[/INST]{% elif m['role'] == 'assistant' %} {{ m['content'] }}<|im_end|>{% endif %}"
        "{% endfor %}"
    )
    tokenizer = make_byte_tokenizer(chat_template=template)
    rendered(talk("a", "b", "c", "d"), tokenizer)
    with pytest.raises(DataError, match="renders the beginning of a conversation differently"):
        render_all([talk("a", "b", "c", "d", system="S")], tokenizer)
