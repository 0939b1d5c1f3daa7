"""Talk to a model: in the terminal, with one question, or with a file of conversations.

Questions and answers go to stdout, everything else to stderr. One person, one conversation at a time; `scaletrain
serve` is for more.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from scaletrain.log import console
from scaletrain.model.sampling import Sampling
from scaletrain.model.store import cache_folder
from scaletrain.serve.chat_commands import Surroundings
from scaletrain.serve.chat_model import ChatModel
from scaletrain.serve.chat_pipe import answer_lines, answer_once, read_question
from scaletrain.serve.chat_served import ServedModel, connect
from scaletrain.serve.chat_session import ChatSession
from scaletrain.serve.chat_terminal import Screen, TerminalReader, talk

Device = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True)
class Models:
    """Where models come from. find: the folder of a model by its name; raises ModelError."""

    find: Callable[[str], Path]
    device: Device = "auto"

    def local(self, name: str) -> ChatModel:
        """Load a model into this process."""
        from scaletrain.model.generate import load_for_chat  # torch: a chat with a server does without it
        from scaletrain.serve.chat_local import LocalModel

        with console().status("loading the model"):
            model, tokenizer = load_for_chat(self.find(name), device=self.device)
        return LocalModel(model, tokenizer, name=name)

    def another(self, name: str, *, beside: ChatModel) -> ChatModel:
        """What /model means: URL [NAME], a model of the server that is talked to now, or one to load."""
        if name.startswith(("http://", "https://")):
            url, _, of_server = name.partition(" ")
            return connect(url, of_server.strip() or None)
        if isinstance(beside, ServedModel) and name in beside.others():
            return connect(beside.url, name)
        return self.local(name)


def chat(
    model: ChatModel,
    models: Models,
    *,
    sampling: Sampling,
    system_prompt: str | None = None,
    prompt: str | None = None,
    jsonl: bool = False,
    plain: bool = False,
) -> None:
    """Talk to a model, and to the others that /model names.

    With `prompt`, or where stdin is a pipe, only the one answer goes to stdout; with `jsonl` stdin is conversations.
    """
    session = ChatSession(model, sampling, system_prompt)
    if jsonl:
        answer_lines(model, sys.stdin.buffer, sys.stdout.buffer, sampling, system_prompt=system_prompt)
    elif prompt is not None:
        answer_once(session, prompt, sys.stdout)
    elif not sys.stdin.isatty():
        answer_once(session, read_question(sys.stdin.buffer), sys.stdout)
    else:
        _talk(session, models, plain=plain)


def _talk(session: ChatSession, models: Models, *, plain: bool) -> None:
    answers = Console(highlight=False)
    screen = Screen(answers, console(), markdown=answers.is_terminal and not answers.is_dumb_terminal and not plain)
    reader = TerminalReader(cache_folder() / "chat-history")
    surroundings = Surroundings(
        open_model=lambda name: models.another(name, beside=session.model),
        edit=lambda text: reader.read(text=text),
        copy=screen.copy,
    )
    talk(session, screen, reader, surroundings)
