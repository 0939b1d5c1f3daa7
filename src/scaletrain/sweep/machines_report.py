"""The part of a sweep's page on its machines: demand, machines and cost over time, and what the autoscaler took."""

import math
import statistics
from collections.abc import Sequence
from html import escape

from scaletrain.page import section, share, table
from scaletrain.page.lines import Chart, Line, Mark, legend, line_chart
from scaletrain.sweep.machines import Sample, Watched
from scaletrain.sweep.machines_account import MachineAccount, account_of, lost_at, spent

_WANTED, _THERE, _BUSY = 1, 0, 2  # each a colour of the page's style
_LEGEND = ((_WANTED, "wanted by the trials"), (_THERE, "there"), (_BUSY, "at work"))


def machines_section(watched: Sequence[Watched]) -> str:
    """The section; empty where no autoscaler brought machines. It needs the page's charts."""
    account = account_of(watched)
    if account is None:
        return ""
    seen = [each for each in watched if len(each.samples) > 1]
    note = (
        "A machine is at work where anything of a trial is on it, from its loading on. Between two commands nobody "
        "looked. A mark is a machine that went while it was wanted."
    )
    drawn = line_chart(_counts(seen)) + line_chart(_costs(seen))
    return section("Machines", note, f'{legend(_LEGEND)}<div class="charts">{drawn}</div>{_table(account)}')


def _counts(seen: Sequence[Watched]) -> Chart:
    began = seen[0].samples[0].at
    minutes, samples = _row([each.samples for each in seen], began)
    counts = {
        _WANTED: [math.nan if each is None else each.wanted for each in samples],
        _THERE: [math.nan if each is None else len(each.machines) for each in samples],
        _BUSY: [math.nan if each is None else each.busy for each in samples],
    }
    lines = [Line(number, told, minutes, counts[number], "level") for number, told in _LEGEND]
    marks = [Mark(_THERE, (at - began) / 60, "a machine was lost") for each in seen for at in lost_at(each.samples)]
    return Chart("Machines", "minutes", lines, shown="integer", from_zero=True, marks=marks)


def _costs(seen: Sequence[Watched]) -> Chart:
    """What they have cost since the first command; without a line where a price is not known."""
    began, minutes, whole, unused = seen[0].samples[0].at, list[float](), list[float](), list[float]()
    for each in seen:
        before = (whole[-1], unused[-1]) if whole else (0.0, 0.0)
        for at, whole_usd, unused_usd in spent(each):
            minutes.append((at - began) / 60)
            whole.append(before[0] + whole_usd)
            unused.append(before[1] + unused_usd)
    lines = [Line(_THERE, "all, with the head", minutes, whole), Line(_WANTED, "not at work", minutes, unused)]
    return Chart("Cost", "minutes", lines, shown="dollars", from_zero=True, note="of all machines, and of those idle")


def _row(stretches: Sequence[Sequence[Sample]], began: float) -> tuple[list[float], list[Sample | None]]:
    """All samples in one row by minutes, with a break between two commands."""
    minutes, row = list[float](), list[Sample | None]()
    for samples in stretches:
        if row:
            minutes.append(minutes[-1])
            row.append(None)
        minutes += [(each.at - began) / 60 for each in samples]
        row += samples
    return minutes, row


def _table(account: MachineAccount) -> str:
    whole = account.busy_s + account.idle_s + account.coming_s
    rows = [
        ("machines at once, most", f"{account.most}"),
        ("from wanted to there, median and longest", _spread(account.waits_s)),
        ("from idle to taken away, median and longest", _spread(account.idle_before_s)),
        ("machines lost while wanted", f"{account.lost}"),
        ("machine hours", f"{whole / 3600:.2f}"),
        ("of that at work", share(account.busy_s, whole)),
        ("idle", share(account.idle_s, whole)),
        ("being launched and set up", share(account.coming_s, whole)),
        ("up and idle at the end, until the idle time-out", f"{account.left_idle}"),
    ]
    if account.usd is not None and account.unused_usd is not None:
        rows.append(("cost with the head", f"${account.usd:,.3g}"))
        rows.append(("of that for machines not at work", f"${account.unused_usd:,.3g}"))
    return table(("", ""), [(escape(name), escape(told)) for name, told in rows])


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.0f} s, {max(seconds):.0f} s ({len(seconds)} machines)"
