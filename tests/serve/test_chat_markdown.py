"""An answer shown as Markdown while it grows: nothing twice, nothing lost, and the same at the end as at once."""

import io
import random

import pytest
from rich.console import Console

from scaletrain.serve.chat_markdown import MarkdownStream, blocks_of

ANSWER = """\
# Three ways

A first paragraph
with two lines.

1. one
2. two

   still two
3. three

```python
def f():

    return "```"
```

| a | b |
|---|---|
| 1 | 2 |

The end, with a [link](https://example.com/x).
"""


def rendered(pieces: list[str]) -> str:
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    stream = MarkdownStream(console)
    for piece in pieces:
        stream.write(piece)
    stream.finish()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_pieces_do_not_change_what_is_shown() -> None:
    """However an answer is cut, every block is printed once, whole."""
    at_once = rendered([ANSWER])
    for seed in range(5):
        cut = sorted(random.Random(seed).sample(range(1, len(ANSWER)), 40))
        pieces = [ANSWER[start:stop] for start, stop in zip([0, *cut], [*cut, len(ANSWER)], strict=True)]
        assert rendered(pieces) == at_once
    for wanted in ("Three ways", "still two", 'return "```"', "3 three", "https://example.com/x"):
        assert at_once.count(wanted) == 1


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("one\n\ntwo", "two"),
        ("one\n", "one\n"),
        ("- a\n\n- b\n", "- a\n\n- b\n"),
        ("a\n\n```\nx\n\ny", "```\nx\n\ny"),
        ("", ""),
    ],
)
def test_only_the_last_block_may_still_change(text: str, rest: str) -> None:
    """A list goes on over empty lines, and code to its fence."""
    blocks = blocks_of(text)
    assert blocks[-1] == rest
    assert "".join(blocks) == text


def test_a_long_block_is_drawn_within_the_screen() -> None:
    """Of a block higher than the screen its end is drawn while it grows, and all of it when it is finished."""
    console = Console(file=io.StringIO(), width=60, height=10, force_terminal=True, legacy_windows=False)
    stream = MarkdownStream(console)
    lines = [f"line {number}" for number in range(40)]
    stream.write("```\n" + "\n".join(lines))
    assert isinstance(console.file, io.StringIO)
    growing = len(console.file.getvalue().splitlines())
    stream.write("\n```\n")
    stream.finish()
    assert growing < 20
    assert all(line in console.file.getvalue() for line in lines)
