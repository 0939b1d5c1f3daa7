"""What a sweep sees of an autoscaling cluster's machines, and what it makes of that."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaletrain.ray_autoscaler import ClusterState, Machine, head_type, machine_types
from scaletrain.sweep.machines import MachineWatch, Sample, Watched, read_watched
from scaletrain.sweep.machines_account import account_of, lost_at, spent
from scaletrain.sweep.machines_report import machines_section
from scaletrain.sweep.records import SweepLayout

PRICES = {"cpu": 0.36}


def sample(at: float, wanted: int, machines: str, coming: int = 0) -> Sample:
    """`machines` as "a+ b": a works, b is idle."""
    seen = {name.rstrip("+"): ("cpu", name.endswith("+")) for name in machines.split()}
    return Sample(at, wanted, seen, {"cpu": coming} if coming else {})


def watched(*samples: Sample, prices: Mapping[str, float | None] = PRICES) -> Watched:
    return Watched(samples, prices, head_usd_per_hour=0.2)


UP_AND_DOWN = (
    sample(0, 0, ""),
    sample(10, 2, "", coming=2),
    sample(40, 2, "a"),
    sample(42, 2, "a+ b"),
    sample(44, 2, "a+ b+"),
    sample(100, 1, "a+ b"),  # one trial is over, and no other begins
    sample(130, 1, "a+"),
    sample(160, 1, ""),  # a is taken while it works
    sample(190, 1, "c+"),
    sample(200, 0, "c"),
)


def test_waits_idle_times_and_losses_are_told_apart() -> None:
    """Each machine that was wanted has its wait; one that the autoscaler took was idle; one that was lost was not."""
    account = account_of([watched(*UP_AND_DOWN)])
    assert account is not None
    assert account.waits_s == (30, 32, 30)
    assert account.idle_before_s == (30,)
    assert (account.lost, account.left_idle, account.most) == (1, 1, 2)
    assert list(lost_at(UP_AND_DOWN)) == [160]
    assert account.busy_s == 118 + 56 + 10
    assert account.idle_s == 2 + 2 + 30
    assert account.coming_s == 60
    assert account.unused == (34 + 60) / (184 + 34 + 60)


def test_a_machine_that_was_warned_counts_as_lost_though_it_is_idle() -> None:
    """A trial leaves it within the notice: an autoscaler takes nothing that is wanted."""
    seen = (sample(0, 2, "a+ b+"), sample(5, 2, "a+ b"), sample(20, 2, "a+"), sample(60, 2, "a+ c+"))
    account = account_of([watched(*seen)])
    assert account is not None
    assert (account.lost, account.idle_before_s, account.waits_s) == (1, (), (40,))


def test_costs_count_the_head_and_what_is_launched() -> None:
    """To the cent; a machine without a price makes the whole unknown, as a sum without it would be a lie."""
    account = account_of([watched(*UP_AND_DOWN)])
    assert account is not None and account.usd is not None and account.unused_usd is not None
    assert account.usd == pytest.approx(0.36 * (184 + 34 + 60) / 3600 + 0.2 * 200 / 3600)
    assert account.unused_usd == pytest.approx(0.36 * (34 + 60) / 3600)
    assert spent(watched(*UP_AND_DOWN))[-1] == pytest.approx((200, account.usd, account.unused_usd))
    unknown = account_of([watched(*UP_AND_DOWN, prices={"cpu": None})])
    assert unknown is not None and (unknown.usd, unknown.unused_usd) == (None, None)


def test_two_commands_are_two_stretches() -> None:
    """What lies between them was seen by nobody, and counts as nothing."""
    again = watched(sample(1000, 1, "d+"), sample(1010, 1, "d+"))
    one, both = account_of([watched(*UP_AND_DOWN)]), account_of([watched(*UP_AND_DOWN), again])
    assert one is not None and both is not None
    assert (both.seconds, both.busy_s, both.waits_s) == (one.seconds + 10, one.busy_s + 10, one.waits_s)
    assert account_of([watched(sample(0, 1, ""))]) is None
    assert account_of([]) is None


@st.composite
def stories(draw: st.DrawFn) -> tuple[Sample, ...]:
    """Any row of samples."""
    at, found = 0.0, []
    for _ in range(draw(st.integers(2, 12))):
        names = draw(st.sets(st.sampled_from("abcde")))
        machines = " ".join(f"{name}{draw(st.sampled_from(('', '+')))}" for name in sorted(names))
        found.append(sample(at, draw(st.integers(0, 5)), machines, coming=draw(st.integers(0, 3))))
        at += draw(st.integers(1, 50))
    return tuple(found)


@given(stories())
def test_every_second_of_a_machine_counts_once(story: tuple[Sample, ...]) -> None:
    """Busy, idle and coming add up; who went was either lost or taken; a wait is never longer than the story."""
    account = account_of([watched(*story)])
    assert account is not None
    pairs = list(pairwise(story))
    there = sum(len(a.machines) * (b.at - a.at) for a, b in pairs)
    assert account.busy_s + account.idle_s == there
    went = sum(len(set(a.machines) - set(b.machines)) for a, b in pairs)
    assert account.lost + len(account.idle_before_s) == went
    assert len(account.waits_s) <= sum(len(set(b.machines) - set(a.machines)) for a, b in pairs)
    assert all(0 < wait <= account.seconds for wait in (*account.waits_s, *account.idle_before_s))


def machine(name: str, *, state: str = "idle", is_head: bool = False) -> Machine:
    return Machine("cpu", "10.0.0.1", name * 14, state, is_head, {}, {})  # type: ignore[arg-type]


def test_only_what_changes_is_kept_and_it_outlives_the_process(tmp_path: Path) -> None:
    """A look that fails is a gap; the last look ends the story; the bucket gives back what was seen."""
    layout, now = SweepLayout(str(tmp_path), "tiny"), iter(range(100))
    states: Iterator[ClusterState | Exception] = iter(
        (
            ClusterState((machine("h", is_head=True),), {"cpu": 1}, {"cpu": 1}),
            ConnectionError("no answer"),
            ClusterState((machine("h", is_head=True), machine("a")), {}, {"cpu": 1}),
            ClusterState((machine("a", state="busy"), machine("b")), {}, {}),
            ClusterState((machine("a", state="busy"), machine("b")), {}, {}),
            ClusterState((machine("a", state="busy"), machine("b")), {}, {}),
        )
    )

    def look() -> ClusterState:
        found = next(states)
        if isinstance(found, Exception):
            raise found
        return found

    watch = MachineWatch(
        layout.machines(1),
        wanted=lambda: 2,
        look=look,
        usd_per_hour=PRICES,
        head_usd_per_hour=None,
        clock=lambda: float(next(now)),
    )
    for _ in range(6):
        watch.look()
    seen = watch.write()
    assert [(each.at, each.busy, len(each.machines)) for each in seen.samples] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 1, 2),
        (4, 1, 2),
    ]
    assert [dict(each.coming) for each in seen.samples] == [{"cpu": 2}, {"cpu": 1}, {}, {}]
    assert read_watched(layout) == (seen,)
    assert read_watched(SweepLayout(str(tmp_path), "none")) == ()


def test_the_page_tells_the_numbers() -> None:
    """And marks the loss; without an autoscaler there is nothing to show."""
    html = machines_section([watched(*UP_AND_DOWN)])
    assert "30 s, 32 s (3 machines)" in html
    assert "66.2%" in html  # 184 of 278 machine seconds at work
    assert html.count('class="mark run-0"') == 1
    assert "Cost" in html
    assert machines_section([]) == ""


def test_the_clusters_file_says_what_machines_are(tmp_path: Path) -> None:
    """Market and region of each type, on both clouds, by which prices are known."""
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "max_workers: 8\nprovider: {region: us-east-1}\nhead_node_type: head\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}, max_workers: 0, node_config: {InstanceType: m7i.xlarge}}\n"
        "  aws: {resources: {CPU: 8}, node_config: {InstanceType: a, InstanceMarketOptions: {MarketType: spot}}}\n"
        "  gcp: {resources: {CPU: 8}, node_config: {machineType: b, scheduling: {provisioningModel: SPOT}}}\n"
        "  dear: {resources: {CPU: 8}, max_workers: 3, node_config: {machineType: b}}\n"
        "  own: {resources: {CPU: 8}}\n"
    )
    found = [(each.name, each.market, each.region, each.max_count) for each in machine_types(file)]
    assert found == [
        ("aws", "spot", "us-east-1", 8),
        ("gcp", "spot", "us-east-1", 8),
        ("dear", "on-demand", "us-east-1", 3),
        ("own", None, None, 8),
    ]
    head = head_type(file)
    assert head is not None and (head.instance_type, head.market) == ("m7i.xlarge", "on-demand")
    assert head_type(tmp_path / "none") is None
