"""The report's sections, as HTML: figures, charts, where the time went, what happened, configurations, answers."""

from collections.abc import Iterator, Sequence
from html import escape

from scaletrain import yaml_text
from scaletrain.goodput import TimeParts
from scaletrain.page import section, table, tiles
from scaletrain.page.bars import Stack, stacks
from scaletrain.report import charts
from scaletrain.report.differences import differences
from scaletrain.report.evaluations import Evaluated
from scaletrain.run_display import amount, dollars, duration, when
from scaletrain.run_history import ENDS, FAULTS, History

_PARTS = ("productive", "data wait", "checkpoint stall", "start up", "recovery", "lost work", "shut down", "idle")
_KINDS = {part: part.replace(" ", "-") for part in _PARTS}
_LABELS = {_KINDS[part]: part for part in _PARTS}
_ATTEMPTS_SHOWN = 40
_PROMPTS_SHOWN = 20
_ANSWER_CHARS = 2_000


def head(histories: Sequence[History]) -> str:
    """What the page is of: one run in numbers, or several in a table."""
    if len(histories) > 1:
        return f'<h1>{len(histories)} runs</h1><p class="dim">Side by side.</p>{_runs(histories)}'
    history = histories[0]
    found = history.summary
    shown = [
        (found.status, f"step {found.last_step:,} of {_number(found.total_steps, ',')}"),
        (_number(found.loss, ".4f"), "training loss, the last step's"),
    ]
    if found.validation_perplexity is not None:
        shown.append((f"{found.validation_perplexity:.2f}", "validation perplexity"))
    if found.tokens:
        shown.append((amount(found.tokens), f"tokens, {_number(found.tokens_per_s, ',.0f')} a second at last"))
    if found.goodput is not None:
        shown.append((f"{found.goodput:.1%}", f"goodput of {duration(history.time.wall_s)}"))
    if found.cost_usd is not None:
        lost_usd = history.cost.lost_work_usd
        lost = f", {dollars(lost_usd)} for lost work" if lost_usd else ""
        shown.append((dollars(found.cost_usd), f"so far{lost}"))
    if skipped := int((history.lines["skipped"] > 0).sum()):
        shown.append((f"{skipped:,}", "steps skipped, whose loss or gradients were not finite"))
    if len(history.attempts) > 1:
        shown.append((f"{len(history.faults):,}", f"faults in {len(history.attempts):,} attempts"))
    told = f"{found.url}; its last step at {when(found.last_step_at)} UTC."
    return (
        f'<h1>Run <code>{escape(found.name)}</code></h1><p class="dim">{escape(told)}</p>'
        f'<div class="tiles">{tiles(shown)}</div>'
    )


def switches(histories: Sequence[History]) -> str:
    """What the reader may show and hide, without any script: runs, single steps, marks; and the axis of the losses."""
    runs = "".join(
        f'<label><input type="checkbox" id="run-{number}" checked><i class="run-{number}"></i>'
        f"{escape(history.summary.name)}</label>"
        for number, history in enumerate(histories)
    )
    parts = [("single steps", "raw"), ("what happened", "marks")]
    shown = "".join(f'<label><input type="checkbox" id="{name}" checked>{text}</label>' for text, name in parts)
    axes = "".join(
        f'<label><input type="radio" name="axis" id="by-{axis}"{" checked" if axis == "step" else ""}>{axis}</label>'
        for axis in charts.AXES
    )
    return (
        '<form class="switches" autocomplete="off">'
        + (f'<fieldset><legend class="hidden">Runs</legend>{runs}</fieldset>' if len(histories) > 1 else "")
        + f'<fieldset><legend class="hidden">Show</legend>{shown}</fieldset>'
        + f"<fieldset><legend>Losses by</legend>{axes}</fieldset></form>"
    )


def learning(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> str:
    """How it learned."""
    drawn = charts.learning(histories, evaluated)
    note = "Faint lines are single steps, and heavy ones their moving average over a fiftieth of the run."
    return section("Learning", note, drawn) if drawn else ""


def speed(histories: Sequence[History]) -> str:
    """How fast it was, and what held it up."""
    drawn = charts.speed(histories)
    return section("Speed", "Of the steps that count.", drawn) if drawn else ""


def times(histories: Sequence[History]) -> str:
    """Where the wall time went, by attempt or by run; workers and cost as time went by."""
    if len(histories) > 1:
        rows = [_stack(history.summary.name, history.time.parts, history.time.goodput) for history in histories]
        note = "By run. Goodput is the share of the wall time that went into steps that count, without their waiting."
    else:
        account = histories[0].time
        rows = [_stack("all", account.parts, account.goodput)]
        if len(account.attempts) > 1:
            rows += [_stack(f"attempt {each.attempt}", each.parts) for each in account.attempts[-_ATTEMPTS_SHOWN:]]
        hidden = len(account.attempts) - _ATTEMPTS_SHOWN
        note = "Lost work was trained in vain; recovery is the way back to training after a fault." + (
            f" The first {hidden} attempts are not shown." if hidden > 0 else ""
        )
    if not any(history.time.wall_s for history in histories):
        return ""
    drawn = stacks(rows, _LABELS, show=duration)
    return section("Where the time went", note, drawn + charts.over_time(histories))


def events(histories: Sequence[History]) -> str:
    """Every attempt: from where, with how many workers, and how it ended."""
    rows = []
    for number, history in enumerate(histories):
        for each in history.attempts[-_ATTEMPTS_SHOWN:]:
            name = [f'<i class="swatch run-{number}"></i> {escape(history.summary.name)}'] if len(histories) > 1 else []
            end = f'<span class="flag">{ENDS[each.end]}</span>' if each.end in FAULTS else ENDS[each.end]
            lost = "–"
            if each.lost_steps or each.lost_work_s:
                money = f", {dollars(each.lost_usd)}" if each.lost_usd else ""
                lost = f"{each.lost_steps:,} steps, {duration(each.lost_work_s)}{money}"
            cells = (
                *name,
                str(each.attempt),
                _number(each.from_step, ","),
                _number(each.workers, "d"),
                f"{each.steps:,}",
                duration(each.gap_s) if each.gap_s is not None else "–",
                end,
                lost,
            )
            rows.append((number, cells))
    if not rows:
        return ""
    heads = (
        *(["run"] if len(histories) > 1 else []),
        *("attempt", "from step", "workers", "steps", "back after", "how it ended", "lost"),
    )
    texts = (0, len(heads) - 2) if len(histories) > 1 else (len(heads) - 2,)
    kinds = [f"of-run-{number}" for number, _ in rows]
    return section("What happened", "", table(heads, [cells for _, cells in rows], texts=texts, kinds=kinds))


def evaluations(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> str:
    """Perplexity of what was measured of each run: its first model and its newest."""
    rows = []
    for history, found in zip(histories, evaluated, strict=True):
        for each in (*found.measured[:1], *found.measured[1:][-1:]):
            for corpus, perplexity, low, high, bits in each.figures:
                rows.append(
                    (
                        escape(history.summary.name),
                        f"{each.step:,}",
                        escape(corpus),
                        f"{perplexity:.2f}",
                        f"{low:.2f} to {high:.2f}",
                        _number(bits, ".3f"),
                    )
                )
    heads = ("run", "step", "corpus", "perplexity", "95% interval", "bits per byte")
    note = "On held-out conversations; <code>evaluation/report.html</code> of the run tells more."
    return section("Evaluation", note, table(heads, rows, texts=(0, 2))) if rows else ""


def answers(histories: Sequence[History], evaluated: Sequence[Evaluated]) -> str:
    """What the models of different steps answered to the same prompts."""
    prompts = dict.fromkeys(prompt for found in evaluated for prompt in found.prompts)
    drawn = []
    for place, prompt in enumerate(list(prompts)[:_PROMPTS_SHOWN]):
        rows = [
            (number, f"{history.summary.name}, " if len(histories) > 1 else "", each.step, each.answers[prompt])
            for number, (history, found) in enumerate(zip(histories, evaluated, strict=True))
            for each in found.measured
            if prompt in each.answers
        ]
        said = "".join(
            f'<div class="of-run-{number}"><span class="dim small">{escape(run)}step {step:,}</span>'
            f'<div class="said" dir="auto" tabindex="0">{escape(reply[:_ANSWER_CHARS]) or "(nothing)"}</div></div>'
            for number, run, step, reply in rows
        )
        opened = " open" if place == 0 else ""
        drawn.append(
            f'<details{opened}><summary dir="auto">{escape(prompt)}</summary>'
            f'<article class="sample">{said}</article></details>'
        )
    note = "Always the most likely token, by the checkpoints that were measured."
    return section("Answers over time", note, "".join(drawn)) if drawn else ""


def configurations(histories: Sequence[History]) -> str:
    """In what the runs differ, and all that was set."""
    configs = [history.summary.config for history in histories]
    parts = []
    if len(histories) > 1:
        found = differences(configs)
        heads = ("field", *(history.summary.name for history in histories))
        rows = [(f"<code>{escape(name)}</code>", *map(escape, values)) for name, values in found]
        parts.append(
            table(heads, rows, texts=tuple(range(len(heads))))
            if rows
            else '<p class="dim">They were configured alike.</p>'
        )
    for history in histories:
        text = "\n".join(_config_lines(history))
        parts.append(
            f"<details><summary>{escape(history.summary.name)}: all of it</summary>"
            f'<pre tabindex="0">{escape(text)}</pre></details>'
        )
    note = "Only what differs." if len(histories) > 1 else ""
    return section("Configuration", note, "".join(parts))


# ---- parts ---------------------------------------------------------------------------------------------------------


def _runs(histories: Sequence[History]) -> str:
    heads = (
        *("run", "status", "step", "loss", "validation perplexity", "tokens", "tokens/s", "goodput", "cost", "workers"),
        *("faults",),
    )
    rows = [
        (
            f'<i class="swatch run-{number}"></i> {escape(history.summary.name)}',
            history.summary.status,
            f"{history.summary.last_step:,} of {_number(history.summary.total_steps, ',')}",
            _number(history.summary.loss, ".4f"),
            _number(history.summary.validation_perplexity, ".2f"),
            amount(history.summary.tokens or 0),
            _number(history.summary.tokens_per_s, ",.0f"),
            _number(history.summary.goodput, ".1%"),
            dollars(history.summary.cost_usd) if history.summary.cost_usd is not None else "–",
            _number(history.summary.workers, "d"),
            str(len(history.faults)),
        )
        for number, history in enumerate(histories)
    ]
    return f"<section>{table(heads, rows, texts=(0, 1))}</section>"


def _stack(name: str, parts: TimeParts, goodput: float | None = None) -> Stack:
    seconds = parts.by_name()
    told = duration(parts.total_s) + (f", goodput {goodput:.0%}" if goodput is not None else "")
    return Stack(name, [(_KINDS[part], seconds[part]) for part in _PARTS], told)


def _config_lines(history: History) -> Iterator[str]:
    for name, value in history.summary.config.items():
        if value is not None:
            yield f"{name}: {yaml_text.dump_value(value)}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
