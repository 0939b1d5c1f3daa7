"""Takes docs/scaling.png and docs/judge-result.png, in Chromium: of a study that ran, and of a jury that is made up.

The study is that of tests/commands.py's tiny model, on a machine that does nothing else: `scaletrain sweep` with
worker_counts [1, 2, 3, 4] and stages [1, 2].

python docs/take_page_pictures.py BUCKET/sweeps/STUDY/report.html
"""

import math
import random
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from take_pictures import CHROMIUM, FOLDER

from scaletrain.judge.items import Item, Items
from scaletrain.judge.page import result_page
from scaletrain.judge.result import result_of
from scaletrain.judge.votes import Choice, Vote

WIDTH, MARGIN = 1060, 14
JUDGES = ("Ana", "Ben", "Cleo", "Dan", "Eve")
STRENGTHS = {"base": 0.0, "step-400": 3.0, "step-800": 3.5}


def main(study: str) -> None:
    """Take both, the second down to the end of its scores."""
    take(Path(study), FOLDER / "scaling.png")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "result.html"
        page.write_bytes(jury_page())
        take(page, FOLDER / "judge-result.png", last="Scores")


def take(page_file: Path, picture: Path, *, last: str = "") -> None:
    """Take a page, the whole of it or down to the end of the section `last`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": WIDTH, "height": 800}, color_scheme="light").new_page()
        page.goto(page_file.absolute().as_uri())
        end = page.locator("section", has_text=last).last if last else page.locator("footer")
        box = end.bounding_box()
        assert box is not None
        height = box["y"] + box["height"] + MARGIN
        page.screenshot(path=picture, full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        browser.close()


def jury_page() -> bytes:
    """The result of judges who mostly see what there is to see, and of one who takes the left answer nearly always."""
    draw = random.Random(7)
    items = Items(
        tuple(
            Item(({"role": "user", "content": f"{number}?"},), {name: f"{name} {number}" for name in STRENGTHS})
            for number in range(90)
        )
    )
    votes = []
    for pair in items.pairs.values():
        first_wins = draw.random() < 1 / (1 + math.exp(STRENGTHS[pair.second] - STRENGTHS[pair.first]))
        for judge in draw.sample(JUDGES, draw.choices((0, 1, 2, 3), (25, 30, 30, 15))[0]):
            left, right = (pair.first, pair.second) if draw.random() < 0.5 else (pair.second, pair.first)
            better = left if (first_wins == (left == pair.first)) == (draw.random() < 0.93) else right
            choice: Choice = "left" if better == left or (judge == "Dan" and draw.random() < 0.85) else "right"
            if judge != "Dan" and draw.random() < 0.1:
                choice = draw.choice(("tie", "tie", "both_bad"))
            votes.append(Vote(judge, pair.id, pair.item.id, left, right, choice, seconds=draw.uniform(6, 30)))
    return result_page(result_of(items, votes, []))


if __name__ == "__main__":
    main(sys.argv[1])
