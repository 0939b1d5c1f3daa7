"""A chat in the terminal: lines are read with editing, history and completion, and answers are shown as they come."""

import base64
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from rich.console import Console

from scaletrain.errors import ConfigError, ScaletrainError
from scaletrain.log import visible
from scaletrain.serve.chat_commands import COMMANDS, LeaveChat, Outcome, Surroundings, run_command, setting_names
from scaletrain.serve.chat_markdown import MarkdownStream
from scaletrain.serve.chat_session import ChatSession, Pieces


class Reader(Protocol):
    """Where lines come from: EOFError at their end, KeyboardInterrupt for Ctrl-C."""

    def read(self, *, text: str = "") -> str:
        """Return what the user types, or makes of `text`."""
        ...


class Screen:
    """Where answers go (`answers`), and everything else (`notes`)."""

    def __init__(self, answers: Console, notes: Console, *, markdown: bool) -> None:
        self.answers = answers
        self.notes = notes
        self._markdown = markdown

    def note(self, text: str, *, style: str = "dim") -> None:
        self.notes.out(visible(text), style=style, highlight=False)

    def show(self, pieces: Iterable[str]) -> None:
        """Show an answer as it comes, up to where it was stopped."""
        write, finish = self._plain() if not self._markdown else self._rendered()
        try:
            for piece in pieces:
                write(piece)
        finally:
            finish()

    def copy(self, text: str) -> None:
        """Ask the terminal to put a text into the clipboard (xterm's control sequence OSC 52)."""
        if not self.answers.is_terminal:
            raise ConfigError("/copy needs a terminal")
        self.answers.file.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
        self.answers.file.flush()

    def _plain(self) -> tuple[Callable[[str], None], Callable[[], None]]:
        def write(piece: str) -> None:
            shown = visible(piece) if self.answers.is_terminal else piece
            self.answers.file.write(shown)
            self.answers.file.flush()

        return write, lambda: write("\n")

    def _rendered(self) -> tuple[Callable[[str], None], Callable[[], None]]:
        stream = MarkdownStream(self.answers)
        return stream.write, stream.finish


def talk(session: ChatSession, screen: Screen, reader: Reader, surroundings: Surroundings) -> None:
    """Answer line after line until there are no more."""
    screen.note(f"{session.model.name} listens. Type a message, or /help. Ctrl-D leaves.")
    while True:
        screen.notes.print()
        try:
            line = reader.read()
        except EOFError:
            return
        except KeyboardInterrupt:
            screen.note("(Ctrl-D or /exit leaves)")
            continue
        try:
            if line.startswith("/"):
                _show(session, screen, run_command(session, surroundings, line))
            elif line.strip():
                _show(session, screen, session.ask(line.strip()))
        except LeaveChat:
            return
        except (KeyboardInterrupt, EOFError):  # while a command was working, or asked for a line
            screen.note("(stopped)")
        except ScaletrainError as error:
            screen.note(str(error), style="red")


def _show(session: ChatSession, screen: Screen, outcome: Outcome) -> None:
    if isinstance(outcome, str):
        screen.note(outcome)
        return
    is_stopped = not _shown(screen, outcome)
    line = session.last.line(session.model.context_tokens)
    if is_stopped:
        line = f"(stopped) {line}"
    if line:
        screen.note(line)


def _shown(screen: Screen, pieces: Pieces) -> bool:
    """Show an answer; False where Ctrl-C stopped it. The model stops with it."""
    with closing(pieces), _Interrupts() as interrupts:
        try:
            screen.show(interrupts.checked(pieces))
        except KeyboardInterrupt:
            return False
    return True


class _Interrupts:
    """Remembers Ctrl-C while it is entered: a KeyboardInterrupt that is raised in a destructor or a callback is lost.

    Raised it is all the same, as what waits for a server would not look.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: object = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def checked(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces, up to the first after a Ctrl-C; there KeyboardInterrupt is raised again."""
        for piece in pieces:
            yield piece
            if self._came:
                raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        raise KeyboardInterrupt


# --- Reading lines --------------------------------------------------------------------------------------------------


class TerminalReader:
    """Lines of a terminal, edited with prompt_toolkit; earlier ones, also of earlier chats, come back."""

    def __init__(self, history_file: Path) -> None:
        history: History = InMemoryHistory()
        try:
            history_file.parent.mkdir(parents=True, exist_ok=True)
            history_file.touch(mode=0o600)
            history = FileHistory(str(history_file))
        except OSError:  # not writable: a chat is no worse for it
            pass
        self._session: PromptSession[str] = PromptSession(
            history=history,
            key_bindings=_key_bindings(),
            completer=SlashCompleter(),
            complete_while_typing=True,
            multiline=True,
            prompt_continuation="… ",
            reserve_space_for_menu=4,
            output=create_output(always_prefer_tty=True),
        )

    def read(self, *, text: str = "") -> str:
        return self._session.prompt("> ", default=text)


def _key_bindings() -> KeyBindings:
    """Enter sends; Alt+Enter, and Enter after a backslash, begin a new line."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\":
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


class SlashCompleter(Completer):
    """The names of commands, of settings after /set, and of files after /save and /load."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, rest = line.partition(" ")
        if not space:
            for each, command in COMMANDS.items():
                if each.startswith(name):
                    yield Completion(each, start_position=-len(name), display_meta=command.help)
        elif name == "/set" and " " not in rest:
            for each in setting_names():
                if each.startswith(rest):
                    yield Completion(each, start_position=-len(rest))
        elif name in COMMANDS and COMMANDS[name].files:
            yield from self._paths.get_completions(Document(rest, len(rest)), complete_event)
