"""What a line that begins with a slash does; /help lists it, and the terminal completes it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from scaletrain.errors import ConfigError
from scaletrain.model.sampling import Sampling
from scaletrain.serve.chat_model import ChatModel
from scaletrain.serve.chat_session import ChatSession, Pieces


class LeaveChat(Exception):
    """Raised by /exit."""


@dataclass(frozen=True)
class Surroundings:
    """What commands need beside the conversation.

    open_model: a model by its name or URL. edit: a text changed by the user. copy: a text into the clipboard.
    """

    open_model: Callable[[str], ChatModel]
    edit: Callable[[str], str]
    copy: Callable[[str], None]


# What a command gives: something to tell, or an answer to show.
Outcome = str | Pieces
Action = Callable[[ChatSession, Surroundings, str], Outcome]


@dataclass(frozen=True)
class Command:
    """`argument` and `help` are for people; `files`: the argument is a path."""

    action: Action
    help: str
    argument: str = ""
    files: bool = False


def run_command(session: ChatSession, surroundings: Surroundings, line: str) -> Outcome:
    """Do what a line says; raises ConfigError for a command that does not exist or a mistake in it."""
    name, _, rest = line.strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        known = [each for each in COMMANDS if each.startswith(name)] if len(name) > 1 else []
        hint = f"did you mean {' or '.join(known)}?" if known else "/help lists them; a space before it sends it"
        raise ConfigError(f"{name}: no such command; {hint}")
    return command.action(session, surroundings, rest.strip())


def settings_line(session: ChatSession) -> str:
    """How answers are sampled, as /set shows it."""
    return "  ".join(f"{name}={value}" for name, value in asdict(session.sampling).items())


def setting_names() -> list[str]:
    return [each.name for each in fields(Sampling)]


def _help(_session: ChatSession, _surroundings: Surroundings, _rest: str) -> str:
    usages = {f"{name} {command.argument}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, usages))
    return "\n".join(
        [
            *(f"{usage:<{width}}  {text}" for usage, text in usages.items()),
            "",
            "Enter sends. Alt+Enter, or a backslash at the end of the line, begins a new line; pasted lines are kept.",
            "Ctrl-R searches what you typed before. Ctrl-C stops an answer, Ctrl-D leaves.",
        ]
    )


def _reset(session: ChatSession, _surroundings: Surroundings, _rest: str) -> str:
    session.reset()
    return "The conversation starts anew."


def _system(session: ChatSession, _surroundings: Surroundings, rest: str) -> str:
    session.system_prompt = rest or None
    session.reset()
    return "The conversation starts anew, " + ("with this system prompt." if rest else "without a system prompt.")


def _set(session: ChatSession, _surroundings: Surroundings, rest: str) -> str:
    name, _, value = rest.partition(" ")
    if name and not value.strip():
        raise ConfigError(f"/set {name}: give a value, as /set temperature 0.7")
    if name:
        session.set(name, value.strip())
    return settings_line(session)


def _model(session: ChatSession, surroundings: Surroundings, rest: str) -> str:
    if not rest:
        others = session.model.others()
        return "\n".join(f"{'*' if name == session.model.name else ' '} {name}" for name in others)
    session.model = surroundings.open_model(rest)
    return f"{session.model.name} answers from now on; the conversation stays."


def _retry(session: ChatSession, _surroundings: Surroundings, _rest: str) -> Pieces:
    return session.ask_again()


def _edit(session: ChatSession, surroundings: Surroundings, rest: str) -> Outcome:
    question = session.last_question
    if question is None:
        raise ConfigError("nothing was asked yet: type a message first")
    text = rest or surroundings.edit(question).strip()
    return session.ask_again(text) if text else "Nothing is changed."


def _undo(session: ChatSession, _surroundings: Surroundings, _rest: str) -> str:
    return f"Taken back: {_beginning(session.undo())}"


def _tokens(session: ChatSession, _surroundings: Surroundings, _rest: str) -> str:
    context = session.model.context_tokens
    of = f" of {context:,}" if context is not None else ""
    count = session.model.count_tokens(session.messages) if session.messages else 0
    if count is not None:
        turns = len(session.messages)
        return f"{count:,}{of} tokens in {turns} {'message' if turns == 1 else 'messages'}."
    line = session.last.line(context)
    return line or "This server has not told any tokens yet."


def _save(session: ChatSession, _surroundings: Surroundings, rest: str) -> str:
    path = _path(rest, "/save talk.jsonl")
    try:
        session.save(path)
    except OSError as exc:
        raise ConfigError(f"/save {rest}: cannot be written ({exc.strerror or exc})") from exc
    return f"Saved to {path}."


def _load(session: ChatSession, _surroundings: Surroundings, rest: str) -> str:
    name, _, last = rest.rpartition(" ")
    number = int(last) if name and last.isdecimal() else None
    path = _path(name.strip() if number is not None else rest, "/load talk.jsonl, or /load talk.jsonl 3")
    try:
        session.load(path, number=number)
    except OSError as exc:
        raise ConfigError(f"/load {rest}: cannot be read ({exc.strerror or exc})") from exc
    turns = session.messages
    lines = [f"{len(turns)} messages of {path}; the last two:"]
    lines += [f"  {turn['role']}: {_beginning(turn['content'])}" for turn in turns[-2:]]
    if turns[-1]["role"] == "user":
        lines.append("The last one has no answer yet: /retry asks for one.")
    return "\n".join(lines)


def _copy(session: ChatSession, surroundings: Surroundings, _rest: str) -> str:
    answer = session.last_answer
    if answer is None:
        raise ConfigError("there is no answer to copy yet")
    surroundings.copy(answer)
    return "The last answer is in the clipboard, if this terminal lets programs write there (OSC 52)."


def _exit(_session: ChatSession, _surroundings: Surroundings, _rest: str) -> str:
    raise LeaveChat


def _path(name: str, example: str) -> Path:
    if not name:
        raise ConfigError(f"give the name of a file, as {example}")
    return Path(name).expanduser()


def _beginning(text: str, *, chars: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


COMMANDS: Mapping[str, Command] = {
    "/retry": Command(_retry, "another answer to the last message"),
    "/edit": Command(_edit, "change the last message and ask again; without TEXT: in the line editor", "[TEXT]"),
    "/undo": Command(_undo, "take the last message and its answer back"),
    "/reset": Command(_reset, "forget the conversation"),
    "/system": Command(_system, "set the system prompt and start anew; without TEXT: none", "[TEXT]"),
    "/set": Command(_set, "change how answers are sampled, as /set temperature 0.7; without: show it", "[NAME VALUE]"),
    "/model": Command(_model, "talk to another model, or to URL [NAME]; without: which there are", "[MODEL]"),
    "/tokens": Command(_tokens, "how much of the context is used"),
    "/save": Command(_save, "append the conversation to a JSONL file, to train on", "FILE", files=True),
    "/load": Command(_load, "go on with the last conversation of a file, or that of line N", "FILE [N]", files=True),
    "/copy": Command(_copy, "the last answer into the clipboard"),
    "/help": Command(_help, "this list"),
    "/exit": Command(_exit, "leave (as does Ctrl-D)"),
}
