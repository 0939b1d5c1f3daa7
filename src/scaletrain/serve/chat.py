"""Talk to a model in the terminal: streamed answers over many turns, and commands that begin with a slash.

Ctrl-C stops an answer, not the program; Ctrl-D or /exit leaves. Questions and answers go to stdout, everything else to
stderr. One person, one conversation at a time; `scaletrain serve` is for more.
"""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from scaletrain.errors import ConfigError, ScaletrainError
from scaletrain.log import console
from scaletrain.model.generate import Sampling, load_for_chat, stream_reply
from scaletrain.model.store import cache_folder

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HELP = """\
/reset         forget the conversation
/system TEXT   set the system prompt and start anew; without TEXT: none
/set           show the sampling settings
/set NAME N    change one, as /set temperature 0.7
/save FILE     append the conversation to a JSONL file, to train on
/help          this list
/exit          leave (as does Ctrl-D); Ctrl-C stops an answer"""

_HISTORY_LINES = 1000


def chat(
    model_path: Path,
    *,
    sampling: Sampling,
    system_prompt: str | None = None,
    prompt: str | None = None,
    device: Literal["auto", "cuda", "cpu"] = "auto",
) -> None:
    """Load a Hugging Face folder and talk to it; with `prompt`, print the one answer to stdout and return."""
    from rich.console import Console

    with console().status("loading the model"):
        model, tokenizer = load_for_chat(model_path, device=device)
    session = ChatSession(model, tokenizer, sampling, system_prompt)
    if prompt is not None:
        for piece in session.ask(prompt):
            print(piece, end="", flush=True)
        print()
        return
    with _line_history():
        talk(session, Console(highlight=False), input)


class ChatSession:
    """One conversation with one model: what was said, the system prompt, and how answers are sampled."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        sampling: Sampling,
        system_prompt: str | None,
    ) -> None:
        self.sampling = sampling
        self.system_prompt = system_prompt
        self._model = model
        self._tokenizer = tokenizer
        self._turns: list[dict[str, str]] = []

    @property
    def messages(self) -> list[dict[str, str]]:
        """All turns so far, the system prompt first if there is one."""
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, *self._turns]

    def ask(self, text: str) -> Generator[str, None, None]:
        """Yield the answer to a message in pieces, and keep both; an answer that is stopped is kept as far as it came.

        Where there is no answer at all (an error, or stopped before the first piece) the message is forgotten.
        """
        question = {"role": "user", "content": text}
        pieces: list[str] = []
        try:
            for piece in stream_reply(self._model, self._tokenizer, [*self.messages, question], self.sampling):
                pieces.append(piece)
                yield piece
        finally:
            if answer := "".join(pieces):
                self._turns += [question, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self._turns = []

    def set(self, name: str, text: str) -> None:
        """Change one sampling setting; raises ConfigError for an unknown name or a value that makes no sense."""
        settings: dict[str, Any] = asdict(self.sampling)
        if name not in settings:
            raise ConfigError(f"/set {name}: no such setting; there are {', '.join(settings)}")
        number = float if name in ("temperature", "top_p", "repetition_penalty") else int
        try:
            settings[name] = None if (name, text) == ("seed", "none") else number(text)
        except ValueError as exc:
            raise ConfigError(f"/set {name} {text}: give a {'whole ' if number is int else ''}number") from exc
        self.sampling = Sampling(**settings)

    def save(self, path: Path) -> None:
        """Append the conversation to a JSONL file, in the format `messages`."""
        with path.open("ab") as file:
            file.write(orjson.dumps({"messages": self.messages}) + b"\n")


def talk(session: ChatSession, output: "Console", read_line: Callable[[str], str]) -> None:
    """Answer line after line until there are no more; `read_line` shows a prompt and raises EOFError at the end."""
    output.print("Type a message, or /help. Ctrl-D leaves.", style="dim")
    while True:
        try:
            line = read_line("\n> ").strip()
        except EOFError:
            output.print()
            return
        except KeyboardInterrupt:
            output.print("(Ctrl-D or /exit leaves)", style="dim")
            continue
        if line == "/exit":
            return
        try:
            if line.startswith("/"):
                output.out(_command(session, line), style="dim", highlight=False)
            elif line:
                _answer(session, output, line)
        except ScaletrainError as error:
            output.out(str(error), style="red", highlight=False)


def _answer(session: ChatSession, output: "Console", line: str) -> None:
    try:
        with closing(session.ask(line)) as pieces:
            for piece in pieces:
                output.out(piece, end="", style="cyan", highlight=False)
                output.file.flush()
    except KeyboardInterrupt:
        output.out(" (stopped)", end="", style="dim")
    finally:
        output.out()


def _command(session: ChatSession, line: str) -> str:
    """Do what a command says and return what to tell; raises ConfigError for one that does not exist."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    if command == "/help":
        return HELP
    if command == "/reset":
        session.reset()
        return "The conversation starts anew."
    if command == "/system":
        session.system_prompt = rest or None
        session.reset()
        return "The conversation starts anew, " + ("with this system prompt." if rest else "without a system prompt.")
    if command == "/set":
        name, _, value = rest.partition(" ")
        if name:
            session.set(name, value.strip())
        return "  ".join(f"{name}={value}" for name, value in asdict(session.sampling).items())
    if command == "/save":
        return _save(session, rest)
    raise ConfigError(f"{command}: no such command; /help lists them")


def _save(session: ChatSession, name: str) -> str:
    if not name:
        raise ConfigError("/save: give the name of a file, as /save talk.jsonl")
    path = Path(name).expanduser()
    try:
        session.save(path)
    except OSError as exc:
        raise ConfigError(f"/save {name}: cannot be written ({exc.strerror or exc})") from exc
    return f"Saved to {path}."


@contextmanager
def _line_history() -> Iterator[None]:
    """Arrow keys bring back earlier lines, also those of earlier chats, where stdin is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    path = cache_folder() / "chat-history"
    with suppress(OSError):  # none yet, or not readable: a chat is no worse for it
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
