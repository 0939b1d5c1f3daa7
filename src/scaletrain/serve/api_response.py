"""What a client gets: answers and chunks of answers as the OpenAI API writes them."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scaletrain.serve.api_request import Generation
from scaletrain.serve.protocol import FinishReason, Piece, TokenLogprob


@dataclass
class Answer:
    """One choice while it is made: its text, tokens and log-probabilities so far."""

    parts: list[str] = field(default_factory=list)
    tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, piece: Piece) -> None:
        self.parts.append(piece.text)
        self.tokens += piece.tokens
        self.logprobs += piece.logprobs
        self.finish_reason = piece.finish_reason

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Writer:
    """Writes the answers to one request: `id`, model and time are the same in all of its chunks."""

    def __init__(self, request: Generation, model: str) -> None:
        self.id = ("chatcmpl-" if request.is_chat else "cmpl-") + uuid.uuid4().hex
        self._request = request
        self._model = model
        self._created = int(time.time())
        self._lengths: dict[int, int] = {}

    def whole(self, answers: Sequence[Answer], *, prompt_tokens: int) -> dict[str, Any]:
        """The whole answer of a request that does not stream."""
        choices = [self._whole_choice(index, answer) for index, answer in enumerate(answers)]
        usage = usage_of(prompt_tokens, sum(answer.tokens for answer in answers))
        return {**self._head("chat.completion"), "choices": choices, "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat's choice, which says whose turn it is."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        """The chunk of a piece."""
        if self._request.is_chat:
            delta = {"content": piece.text} if piece.text or piece.logprobs else {}
            return self._chunk(index, {"delta": delta}, piece)
        return self._chunk(index, {"text": piece.text}, piece)

    def usage(self, *, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """The last chunk, where the client asked for the usage."""
        usage = usage_of(prompt_tokens, completion_tokens)
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def _chunk(self, index: int, content: dict[str, Any], piece: Piece | None = None) -> dict[str, Any]:
        reason = piece.finish_reason if piece is not None else None
        logprobs = self._logprobs(index, piece.logprobs) if piece is not None else None
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self._request.include_usage else chunk

    def _whole_choice(self, index: int, answer: Answer) -> dict[str, Any]:
        content: dict[str, Any] = {"text": answer.text}
        if self._request.is_chat:
            content = {"message": {"role": "assistant", "content": answer.text, "refusal": None}}
        logprobs = self._logprobs(index, answer.logprobs)
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": answer.finish_reason}

    def _head(self, kind: str) -> dict[str, Any]:
        kind = kind if self._request.is_chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if self._request.logprobs is None:
            return None
        if self._request.is_chat:
            content = [{**_logprob(each), "top_logprobs": [_logprob(one) for one in each.top]} for each in tokens]
            return {"content": content, "refusal": None}
        offsets = []
        for each in tokens:
            offsets.append(self._lengths.get(index, 0))
            self._lengths[index] = offsets[-1] + len(each.text)
        return {
            "tokens": [each.text for each in tokens],
            "token_logprobs": [each.logprob for each in tokens],
            "top_logprobs": [{one.text: one.logprob for one in each.top} for each in tokens],
            "text_offset": offsets,
        }


def usage_of(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.utf8)}
