"""following: a log that is sent from its beginning again and again is shown once."""

from scaletrain.cluster.following import _Shown


def test_what_was_shown_is_not_shown_again() -> None:
    """A new connection sends the whole log; only what is new appears."""
    pieces: list[str] = []
    shown = _Shown(pieces.append, 0)
    first = shown.restarted()
    first("one\ntw")
    again = shown.restarted()
    again("one\n")
    again("two\nthree\n")
    assert "".join(pieces) == "one\ntwo\nthree\n"


def test_lines_are_skipped_once() -> None:
    """The last lines of a long log, and all that follow, over any number of connections."""
    pieces: list[str] = []
    shown = _Shown(pieces.append, 2)
    shown.restarted()("one\ntwo\nth")
    shown.restarted()("one\ntwo\nthree\nfour\n")
    assert "".join(pieces) == "three\nfour\n"
