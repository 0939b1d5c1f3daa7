"""report: one page that needs nothing else, tells the numbers of stats.json, and is safe to open."""

import re
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from dumps import exchange, write_jsonl

from chromium import CHROMIUM
from scaletrain import storage
from scaletrain.config import Config
from scaletrain.data.prepare import prepare
from scaletrain.data.report import report_html
from scaletrain.data.report_charts import Stream, histogram, sankey
from scaletrain.data.statistics import KEPT, Flow, Statistics
from scaletrain.page.bars import Bar, shares
from varied import EVIL, prepare_varied, varied_config
from web_pages import Complaints, chromium, opened, violations

ATTACK = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"


class Page(HTMLParser):
    """A page's tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.text += data


def report_of(dataset_url: str) -> str:
    return storage.read_text(storage.join(dataset_url, "report.html"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the varied dataset."""
    return prepare_varied(tmp_path_factory.mktemp("varied")).dataset_url


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a dataset whose texts, names, ids and reasons all attack whoever reads of them."""
    folder = tmp_path_factory.mktemp("attacked")
    rows = [exchange(f"{ATTACK} {number}", f"{ATTACK} yes") for number in range(9)]
    name = "<b onclick=alert(1)>.jsonl"
    path = write_jsonl(folder / name, [*rows, exchange(ATTACK), {"messages": [{"role": ATTACK, "content": "x"}]}])
    settings = varied_config(folder).model_dump()
    settings["data"] |= {"corpora": [{"format": "messages", "name": ATTACK, "source": str(path)}], "seq_len": 512}
    return prepare(Config.model_validate(settings), use_ray=False).dataset_url


def test_it_tells_the_numbers_of_the_statistics(dataset: str) -> None:
    """Corpora, languages, reasons, steps, splits and licences are all there, with their counts."""
    text = Page(report_of(dataset)).text
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    assert {flow["outcome"] for flow in statistics["flows"]} == {"kept", "too_short", "too_few_turns", "bad_row"}
    assert sum(flow["rows"] for flow in statistics["flows"]) == 60
    for part in ("dump", "plain", "zh", "CC-BY-4.0", "too_short", "check_length", "fix_unicode", "validation"):
        assert part in text
    for corpus in statistics["corpora"]:
        assert f"{corpus['tokens']:,}" in text and f"{corpus['read']}" in text
    assert f"{statistics['splits']['train']['packing_efficiency']:.1%}" in text


def test_a_corpus_without_a_licence_is_flagged(dataset: str) -> None:
    """In the report and in the statistics; it is no error."""
    page = report_of(dataset)
    assert "No licence is known for conversations of plain (18)." in Page(page).text
    assert page.count('class="flag"') == 1
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    assert [corpus["licences"] for corpus in statistics["corpora"]] == [{"CC-BY-4.0": 37}, {"unknown": 18}]


def test_samples_are_shown_kept_and_left_out(dataset: str) -> None:
    """What was kept with what is learned from marked, and for each reason some that it left out."""
    page = report_of(dataset)
    assert "<mark>" in page and "&lt;|im_start|&gt;user" in page
    left_out = page[page.index("Left out, and why") : page.index("<h2>Cleaning")]
    assert "too_short" in left_out and "user: 1" in left_out and "dump.jsonl:38" in left_out
    assert "not JSON" in left_out


def test_it_needs_nothing_and_runs_nothing(dataset: str) -> None:
    """No script, no link, no picture, no font from elsewhere; and its policy would not let the browser fetch any."""
    page = report_of(dataset)
    parsed = Page(page)
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "a", "form"} == set()
    assert not [
        name for _, attributes in parsed.tags for name in attributes if name in ("src", "href") or name[:2] == "on"
    ]
    assert "url(" not in page and "@import" not in page
    policy = next(each for tag, each in parsed.tags if tag == "meta" and each.get("http-equiv"))
    assert str(policy["content"]).startswith("default-src 'none'")
    assert len(page) < 500_000


def test_whatever_strangers_wrote_is_text(attacked: str) -> None:
    """In names of corpora and files, in details and in conversations: nothing becomes a tag."""
    parsed = Page(report_of(attacked))
    assert not {tag for tag, _ in parsed.tags} & {"script", "img", "b onclick=alert(1)"}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert parsed.text.count(ATTACK) > 10
    assert EVIL not in report_of(attacked)


def test_personal_data_is_not_shown(tmp_path: Path) -> None:
    """It is masked in what is shown, and nothing is shown of what was left out for it."""
    rows = [
        exchange(f"Write to amy{number}@example.org or @amy_b", "I will, from bob@example.com.") for number in range(5)
    ]
    rows += [exchange(f"Nothing here, {number}", "Nothing there, really.") for number in range(5)]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, exchange("short", "c@d.ef")])
    settings = varied_config(tmp_path).model_dump()
    settings["data"] |= {"corpora": [{"format": "messages", "source": str(path)}]}
    kept = report_of(prepare(Config.model_validate(settings), use_ray=False).dataset_url)
    assert "&lt;email&gt;" in kept and "&lt;account&gt;" in kept
    settings["data"] |= {"cleaning": [{"mask_personal_data": {"replace": [], "drop": ["email"]}}], "min_chars": 1}
    dropped = report_of(prepare(Config.model_validate(settings), use_ray=False).dataset_url)
    assert "personal_data" in dropped
    for page in (kept, dropped):
        assert "example.org" not in page and "amy_b" not in page and "d.ef" not in page
    assert "I will" not in dropped


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_shows_it_and_runs_nothing(attacked: str) -> None:
    """The real parser of a real browser makes the same of it: headings and pictures, and no title taken over."""
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"file://{attacked}/report.html",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"<title>dataset {attacked.rsplit('/')[-1]}</title>" in shown
    assert shown.count("<svg") >= 4 and shown.count("<section>") >= 7
    assert "<img" not in shown and "<script" not in shown


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_on_a_phone_all_of_it_is_reached_and_read(dataset: str, colours: str) -> None:
    """Contrast, names, and keys for what scrolls: axe finds nothing to object to."""
    report = Path(storage.join(dataset, "report.html")).as_uri()
    complaints = Complaints()
    phone = {"viewport": {"width": 390, "height": 780}, "color_scheme": colours}
    with chromium() as browser, opened(browser, report, complaints, **phone) as page:
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints.lines == []


def test_flows_keep_their_size_through_all_columns() -> None:
    """Every column is as high as what flows through it, and many thin nodes do not lie on one another."""
    streams = [Stream((f"corpus {n % 3}", f"reason {n}"), 10 + n, kept=n == 0) for n in range(12)]
    picture = sankey(streams, headings=("a", "b"), name="test")
    boxes = re.findall(r'<rect class="\w+" x="([\d.]+)" y="([\d.]+)" width="14" height="([\d.]+)"', picture)
    by_column: dict[str, list[tuple[float, float]]] = {}
    for x, y, height in boxes:
        by_column.setdefault(x, []).append((float(y), float(height)))
    sums = [sum(height for _, height in column) for column in by_column.values()]
    assert sums == pytest.approx([300, 300], abs=1)
    for column in by_column.values():
        middles = [y + height / 2 for y, height in column]
        assert all(below - above >= 20 for above, below in pairwise(middles))
    assert picture.count('class="ribbon kept"') == 1 and picture.count('class="ribbon lost"') == 11


def test_many_corpora_and_languages_are_drawn_together() -> None:
    """The largest have their own node and the rest share one; the tables have them all."""
    flows = [Flow(f"corpus {n}", f"language {n}", KEPT if n % 2 else f"reason {n}", 100 - n, 0, 0) for n in range(30)]
    page = report_html(Statistics("many", 64, (), {}, flows=flows), {}).decode()
    picture = page[page.index('<svg class="sankey"') : page.index("</svg>")]
    for part in ("corpus 0", "corpus 10", "19 other corpora", "19 other languages", "5 other reasons"):
        assert part in picture
    assert "corpus 11" not in picture and "language 29" in page
    assert Page(page).open == []


def test_pictures_of_nothing_are_no_error() -> None:
    """A split without rows, and a dataset without a language."""
    assert "nothing to show" in histogram({}, name="x")
    assert "0.0%" in shares([Bar("padding", 0, "third")], name="x")
    assert "<svg" in sankey([], headings=("a", "b"), name="x")


def test_a_histogram_has_a_column_for_every_bound() -> None:
    """Also for those between that count nothing, or the picture would lie."""
    picture = histogram({"<= 4": 3, "<= 32": 1}, name="x")
    assert [label for label in ("≤4", "≤8", "≤16", "≤32") if label in picture] == ["≤4", "≤8", "≤16", "≤32"]
