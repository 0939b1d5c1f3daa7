"""Turns of a conversation for a template that writes an answer otherwise once more turns follow, or than it is asked.

Qwen3 leaves the marks of thinking out of all answers but the last; gpt-oss ends the last answer with another token;
Phi-3 puts an end behind the last turn, GLM none behind any; DeepSeek-R1's prompt for an answer has an opening mark that
no written answer has. What such a template writes of a whole conversation is not what the model is asked for, one
answer after the other. So the text that is trained on is put together: each answer stands behind the prompt for it, and
ends as the last one does. What the template puts around turns is learned once, from turns that say nothing; that it
puts the same around the turns of a real conversation, and leaves what they say as it is, is compared for each.
"""

import functools
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from scaletrain.data.conversation import Drop
from scaletrain.data.frame import Around, Frame
from scaletrain.data.rendering import (
    CHANGED,
    Messages,
    Rendered,
    apply,
    apply_to_one,
    begins_with_system,
    unsaid,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EXCHANGES = 3  # a first, one between, a last


@dataclass(frozen=True, slots=True)
class _Written:
    """What the template writes around turns of a whole conversation.

    opening: before a system turn. first: before the first question. answer: between a question and its answer;
    last_answer: the same of the last. question: between an answer and the next question. end: after the last answer.
    """

    opening: str
    first: str
    answer: str
    question: str
    last_answer: str
    end: str

    def around(self, messages: Messages) -> str:
        """The text of a conversation, if the template does the same around all that is said."""
        first = int(begins_with_system(messages))
        parts = [self.opening, messages[0]["content"]] if first else []
        turns = messages[first:]
        for number, turn in enumerate(turns):
            if turn["role"] == "user":
                parts += (self.question if number else self.first, turn["content"])
            else:
                parts += (self.last_answer if number == len(turns) - 1 else self.answer, turn["content"])
        return "".join([*parts, self.end])


def as_asked(messages: Messages, text: str, tokenizer: "PreTrainedTokenizerBase") -> Rendered | Drop | None:
    """Put a conversation together, answer by answer; `text` is what the template writes of the whole.

    A last question without an answer is left out. None where the template's turns cannot be told from one another even
    so.
    """
    learned = _learn(tokenizer, tokenizer.chat_template, has_system=begins_with_system(messages))
    if learned is None:
        return None
    if messages[-1]["role"] == "user":
        messages = messages[:-1]
        if not any(message["role"] == "assistant" for message in messages):
            return Drop("no_supervised_token")
        answered = apply_to_one(tokenizer, messages)
        if isinstance(answered, Drop):
            return answered
        text = answered
    written, asked = learned
    if text != written.around(messages):
        return Drop(CHANGED, "the chat template writes these turns otherwise than others")
    return asked.around(messages)


@functools.lru_cache(maxsize=8)
def _learn(
    tokenizer: "PreTrainedTokenizerBase", chat_template: str | None, *, has_system: bool
) -> tuple[_Written, Frame] | None:
    """Learn, of characters that no text has, what the template writes around turns and what is to stand there."""
    messages = unsaid(_EXCHANGES, has_system=has_system)
    said = [message["content"] for message in messages]
    try:
        [whole] = apply(tokenizer, [messages], add_generation_prompt=False)
        [after_question] = apply(tokenizer, [messages[: has_system + 1]], add_generation_prompt=False)
        prompts = apply(tokenizer, [messages[: has_system + 1], messages[:-1]], add_generation_prompt=True)
    except Drop:
        return None
    between = _between(whole, said)
    if between is None:
        return None
    opening, (first, answer, question, *others, last_answer, end) = between[:has_system], between[has_system:]
    if others != [answer, question]:
        return None
    first_question, last_question = said[has_system], said[-2]
    question_end = after_question.rpartition(first_question)[2]
    first_prompt, prompt = prompts[0].rpartition(first_question)[2], prompts[1].rpartition(last_question)[2]
    answer_end, header_of_question = _end_and_next(question, end, tokenizer)
    if not answer_end or first_prompt != prompt or prompt in ("", question_end):
        return None
    question_end = question_end if prompt.startswith(question_end) else ""
    before = last_answer if last_answer.startswith(prompt) else prompt
    header = len(prompt) - len(question_end)
    asked = Around(before.removeprefix(question_end), header, answer_end)
    turns = (Around(first, 0, question_end), asked, Around(header_of_question, 0, question_end), asked)
    before_system = "".join(opening)
    return _Written(before_system, first, answer, question, last_answer, end), Frame(before_system, turns)


def _between(whole: str, said: list[str]) -> list[str] | None:
    """What stands before each thing said, and after the last; None unless each is there once, in their order."""
    places = [whole.find(each) for each in said]
    if any(whole.count(each) != 1 for each in said) or any(place > later for place, later in pairwise(places)):
        return None
    return re.split("|".join(said), whole)


def _end_and_next(question: str, end: str, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """Split what stands between an answer and the next question into the answer's end and the question's header.

    The answer gets the last answer's end, if that is another. Where nothing is written after an answer, what stops the
    model is the token that begins the next question (as GLM's does), and it ends the last answer too. "" where none of
    them begins with a token of its own.
    """
    longest_first = sorted((each.content for each in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    tokens = "|".join(map(re.escape, longest_first))
    of_next = re.match(rf"(\s*)({tokens})(\s*)", question) if tokens else None
    if of_next is not None and not end:
        return of_next[2], question.removeprefix(of_next[2])
    of_last = re.match(rf"\s*({tokens})", end) if tokens else None
    if of_next is None or of_last is None:
        return "", ""
    return of_next[1] + of_last[1] + of_next[3], question[of_next.end() :]
