"""The tables of ``make bench-waiting``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import dag_parse
from benchmarks.waiters import SLEEP
from benchmarks.waiting_figures import beyond

Figures = Mapping[str, Any]
_LEAST_RATE = 0.9
_GOALS = {
    "requests_per_minute": "requests a minute",
    "connections_per_kind": "connections per kind and namespace",
    "kb_per_wait": "KB per wait beyond Airflow's trigger",
    "p99_s": "p99 from write to event, s",
    "blocked_ms": "loop blocked, start and restart, ms",
    "blocked_without_gc_ms": "the same without collections of garbage",
}


def show(console: Console, figures: Figures, titles: Mapping[str, str]) -> None:
    rows = figures["rows"]
    console.print(_idle(rows, titles))
    console.print(_told(rows, titles))
    for key, found in figures["long_idle"].items():
        console.print(
            f"{titles[key]}, 1,000 waits, {found['seconds']:.0f} s without a change: "
            f"{found['requests_per_minute']:.2f} requests and {found['cpu_s_per_minute']:.2f} CPU s a minute"
        )
    for count, title, notes in _notes(rows, titles, figures["rate"]):
        console.print(f"[bold]{title}, {count:,} waits:[/] {notes}")
    dag_parse.show(console, figures["dag_parse"])
    if "goals" in figures:
        console.print(_goals(figures["goals"]))
    console.print(f"{figures['seconds']:.0f} s")


def _idle(rows: Mapping[str, Mapping[int, Figures]], titles: Mapping[str, str]) -> Table:
    table = Table(title="While nothing changes, a minute")
    for name in ("waiter", "waits", "requests", "renewals", "connections", "CPU s", "server's CPU s", "KB per wait"):
        table.add_column(name, justify="left" if name == "waiter" else "right", no_wrap=name == "waiter")
    baseline = rows.get(SLEEP.key, {})
    for key, by_count in rows.items():
        for count, row in by_count.items():
            if "idle" not in row:
                table.add_row(titles[key], f"{count:,}", row["start"]["not_reached"])
                continue
            idle = row["idle"]
            # KatibClient's threads are no triggers: nothing of theirs is Airflow's.
            own = "first_trigger_blocked_ms" not in row or key == SLEEP.key or count not in baseline
            memory = idle["kb_per_wait"] if own else beyond(row, baseline[count])
            table.add_row(
                titles[key],
                f"{count:,}",
                f"{idle['requests_per_minute']:,.0f}",
                f"{idle.get('renewals_per_minute', 0):,.1f}",
                f"{idle['connections']:,}",
                f"{idle['cpu_s_per_minute']:.1f}",
                f"{idle['server_cpu_s_per_minute']:.1f}",
                f"{memory:,.1f}",
            )
    return table


def _told(rows: Mapping[str, Mapping[int, Figures]], titles: Mapping[str, str]) -> Table:
    table = Table(
        title="From the status write to the event; the longest that the event loop was blocked (in a collection)"
    )
    for name in ("waiter", "waits", "p50", "p99", "told", "first", "start", "restart", "told after"):
        table.add_column(name, justify="left" if name == "waiter" else "right", no_wrap=name == "waiter")
    for key, by_count in rows.items():
        for count, row in by_count.items():
            finish, restart = row.get("finish"), row.get("restart")
            table.add_row(
                titles[key],
                f"{count:,}",
                *(("", "", "") if finish is None else _latency(finish)),
                f"{row['first_trigger_blocked_ms']:,.0f} ms" if "first_trigger_blocked_ms" in row else "",
                _blocked(row["start"]),
                "" if restart is None else _blocked(restart),
                "" if restart is None else f"{restart['told']}/{restart['finished']}",
            )
    return table


def _latency(finish: Figures) -> tuple[str, str, str]:
    return _seconds(finish["p50_s"]), _seconds(finish["p99_s"]), f"{finish['told']:,}/{finish['finished']:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _blocked(found: Figures) -> str:
    return f"{found['blocked_ms']:,.0f} ms ({found['gc_ms']:,.0f})" if "blocked_ms" in found else ""


def _notes(
    rows: Mapping[str, Mapping[int, Figures]], titles: Mapping[str, str], rate: float
) -> list[tuple[int, str, str]]:
    """What a reader must know of a run beside its figures."""
    found = []
    for key, by_count in rows.items():
        for count, row in by_count.items():
            notes = []
            if "not_reached" in row["start"]:
                notes.append(f"not reached: {row['start']['not_reached']}")
            if "finish" in row and row["finish"]["per_s"] < _LEAST_RATE * rate:
                notes.append(f"the server was too busy for more than {row['finish']['per_s']:.1f} completions a second")
            if "restart" in row:
                restart = row["restart"]
                notes.append(f"{restart['requests']:,} requests in the seconds after the restart")
            if row.get("failed"):
                notes.append(f"{row['failed']:,} failed, the first with {row['first_failure']}")
            if notes:
                found.append((count, titles[key], "; ".join(notes)))
    return found


def _goals(found: Figures) -> Table:
    table = Table("ours", "goal", "measured", "", title="Goals")
    for name, one in found.items():
        measured = "not measured" if one["measured"] is None else f"{one['measured']:.4g}"
        verdict = {True: "met", False: "[bold red]missed[/]", None: ""}[one["met"]]
        table.add_row(_GOALS[name], f"<= {one['goal']:g}", measured, verdict)
    return table
