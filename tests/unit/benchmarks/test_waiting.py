"""What `make bench-waiting` makes of its measurements."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.waiting_figures import against_goals, beyond, centile, growth, latency, rounded
from benchmarks.waiting_plot import costs_of, draw


def idle(**changes: Any) -> dict[str, Any]:
    calm = {
        "requests_per_minute": 0.0,
        "renewals_per_minute": 0.2,
        "connections": 2,
        "kinds_watched": 2,
        "cpu_s_per_minute": 2.0,
        "memory_mb": 12.0,
        "kb_per_wait": 12.0,
    }
    return calm | changes


def row(**phases: Any) -> dict[str, Any]:
    return {"start": {"blocked_ms": 40.0, "blocked_without_gc_ms": 9.0}, "idle": idle()} | phases


@pytest.mark.parametrize(("share", "found"), [(0.5, 5), (0.9, 9), (0.91, 10), (0.99, 10), (0.0, 1)])
def test_a_centile_is_a_value_that_was_measured(share: float, found: int) -> None:
    assert centile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == found


def test_latency_counts_from_the_write_to_the_event() -> None:
    sent = {f"job-{number}": 100.0 + number / 50 for number in range(101)}
    told = {name: at + 0.25 for name, at in sent.items()}
    told["job-7"] = sent["job-7"] + 3.0
    found = latency(sent, told, now=110.0)
    assert found == {
        "finished": 101,
        "told": 101,
        "per_s": pytest.approx(50.0),
        "p50_s": pytest.approx(0.25),
        "p99_s": pytest.approx(0.25),
    }
    assert latency({"job-7": 100.0, "job-8": 101.0}, told, now=110.0)["p99_s"] == pytest.approx(3.14)


def test_one_who_is_never_told_looks_no_better_for_it() -> None:
    sent = {"a": 100.0, "b": 101.0, "c": 102.0}
    found = latency(sent, {"a": 100.1, "elsewhere": 90.0}, now=130.0)
    assert (found["finished"], found["told"]) == (3, 1)
    assert (found["p50_s"], found["p99_s"]) == (28.0, 29.0)


def test_memory_is_what_goes_beyond_airflows_own_trigger() -> None:
    assert beyond(row(), row(idle=idle(kb_per_wait=9.5))) == 2.5


@pytest.mark.parametrize(
    ("costs", "grown"),
    [
        ({100: 2.0, 1000: 3.0, 10_000: 20.0}, 10.0),
        ({10_000: 20.0, 100: 2.0}, 10.0),
        ({100: 0.0, 10_000: 20.0}, None),
        ({100: 2.0}, None),
    ],
)
def test_growth_is_from_the_fewest_to_the_most(costs: dict[int, float], grown: float | None) -> None:
    assert (
        growth({count: row(idle=idle(cpu_s_per_minute=cost)) for count, cost in costs.items()}, "cpu_s_per_minute")
        == grown
    )


def test_a_run_that_did_not_come_so_far_is_left_out_of_the_growth() -> None:
    rows = {100: row(), 1000: row(idle=idle(memory_mb=36.0)), 10_000: {"start": {"not_reached": "9 of 10"}}}
    assert growth(rows, "memory_mb") == 3.0


def test_goals_are_held_against_the_worst_of_all_runs() -> None:
    ours = {
        100: row(idle=idle(requests_per_minute=4.0)),
        1000: row(idle=idle(connections=3), finish={"p99_s": 0.4}),
        10_000: row(
            idle=idle(kb_per_wait=14.0),
            finish={"p99_s": 0.9},
            start={"blocked_ms": 80.0, "blocked_without_gc_ms": 30.0},
            restart={"blocked_ms": 130.0, "blocked_without_gc_ms": 60.0},
        ),
    }
    alone = {count: row(idle=idle(kb_per_wait=9.0)) for count in ours}
    assert against_goals(ours, alone) == {
        "requests_per_minute": {"goal": 3.0, "measured": 4.2, "met": False},
        "connections_per_kind": {"goal": 1.0, "measured": 1.5, "met": False},
        "kb_per_wait": {"goal": 10.0, "measured": 5.0, "met": True},
        "p99_s": {"goal": 1.0, "measured": 0.9, "met": True},
        "blocked_ms": {"goal": 100.0, "measured": 130.0, "met": False},
        "blocked_without_gc_ms": {"goal": 100.0, "measured": 60.0, "met": True},
    }


def test_what_was_not_measured_meets_no_goal_and_misses_none() -> None:
    rows = {100: row()}
    assert against_goals(rows, rows)["p99_s"] == {"goal": 1.0, "measured": None, "met": None}


def test_ours_that_broke_meets_no_goal() -> None:
    found = against_goals({100: {"start": {"not_reached": "OSError"}}}, {100: row()})
    assert [one["met"] for one in found.values()] == [None] * 6


def test_four_digits_of_a_figure_count() -> None:
    found = rounded({"a": 1.23456, "b": {"c": 123456.0, "d": None, "e": True}, 7: 12345})
    assert found == {"a": 1.235, "b": {"c": 123500.0, "d": None, "e": True}, 7: 12345}


def test_the_plot_shows_watches_with_their_renewals_and_is_the_same_each_time(tmp_path) -> None:
    rows = {"shared_watch": {100: row(), 10_000: row(idle=idle(cpu_s_per_minute=4.0))}, "own_watch": {100: row()}}
    costs = costs_of(rows | {"katib_client": {100: {"start": {"not_reached": "no environment"}}}})
    assert costs["shared_watch"][100] == {"requests_per_minute": 0.2, "cpu_s_per_minute": 2.0, "memory_mb": 12.0}
    assert costs["katib_client"] == {}
    titles = {"shared_watch": "ours", "own_watch": "own"} | dict.fromkeys(
        ("job_poll", "katib_client", "airflow_alone"), "-"
    )
    drawn = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in drawn:
        draw(costs, titles, path)
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
    assert "ours" in drawn[0].read_text(encoding="utf-8")
