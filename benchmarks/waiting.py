"""
``make bench-waiting``: what it costs to wait for 100, 1,000 and 10,000 objects, ours beside others' ways.

All ask the same control plane, which counts; all triggers run in Airflow's own trigger runner, each kind in a process
of its own. Memory is what is not shared with another process, beyond that of a triggerer that has waited once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from benchmarks import dag_parse, katib_waiter, waiting_plot, waiting_runs, waiting_tables
from benchmarks.idle_plane import allow_connections
from benchmarks.waiters import OWN_WATCH, SHARED, SLEEP, TRIGGERS
from benchmarks.waiting_figures import against_goals, growth, rounded
from benchmarks.waiting_runs import Limits

Figures = dict[str, Any]
Rows = dict[str, dict[int, Figures]]
TITLES = {waiter.key: waiter.title for waiter in TRIGGERS} | {katib_waiter.KEY: katib_waiter.TITLE}
COSTS = ("requests_per_minute", "cpu_s_per_minute", "memory_mb")
# Fewer cannot be ended at 50 a second for long enough.
_LEAST_FINISHED = 1000
_PARSE_RUNS = 3
# So many wait in the background, for as long as the others are measured.
_LONG_WAITS = 1000


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench-waiting", description="What waiting costs.")
    made.add_argument("--waits", type=_counts, default=[100, 1000, 10_000], help="default: 100,1000,10000")
    made.add_argument("--waiters", type=lambda text: text.split(","), default=list(TITLES), help=", ".join(TITLES))
    made.add_argument("--seconds", type=float, default=30.0, help="without any change (default: %(default)s)")
    made.add_argument("--finish-seconds", type=float, default=20.0, help="of completions (default: %(default)s)")
    made.add_argument("--rate", type=float, default=50.0, help="completions a second (default: %(default)s)")
    made.add_argument("--start-limit", type=float, default=90.0, help="seconds for a start (default: %(default)s)")
    made.add_argument("--memory-limit", type=float, default=6000.0, help="MB for one waiter (default: %(default)s)")
    made.add_argument("--plot", type=Path, help="where to draw how the costs grow, as an SVG")
    return made


def _counts(text: str) -> list[int]:
    return sorted(int(part.replace("_", "")) for part in text.split(","))


def main() -> None:
    options, begin = parser().parse_args(), time.monotonic()
    allow_connections()
    limits = Limits(
        idle_seconds=options.seconds,
        finish_seconds=options.finish_seconds,
        rate=options.rate,
        start_seconds=options.start_limit,
        drain_seconds=30.0,
        memory_mb=options.memory_limit,
    )
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="llmtune-waiting-") as folder, console.status("preparing") as status:
        figures: Figures = {"rate": options.rate, "dag_parse": dag_parse.measure(_PARSE_RUNS)}
        templates = _templates(Path(folder), options.waits, status)
        long: Figures = {}
        with contextlib.ExitStack() as background:
            for waiter in (SHARED, OWN_WATCH):
                if _LONG_WAITS in templates and waiter.key in options.waiters:
                    background.enter_context(waiting_runs.long_idle(waiter, templates[_LONG_WAITS], limits, long))
            rows = measured(templates, options.waiters, limits, status)
    figures |= {"rows": rows, "long_idle": long, "growth": grown(rows)}
    if {SHARED.key, SLEEP.key} <= set(options.waiters):
        figures["goals"] = against_goals(rows[SHARED.key], rows[SLEEP.key])
    figures["seconds"] = time.monotonic() - begin
    waiting_tables.show(console, figures, TITLES)
    if options.plot is not None:
        waiting_plot.draw(waiting_plot.costs_of(rows), TITLES, options.plot)
    print("figures:", json.dumps(rounded(figures)))


def _templates(folder: Path, counts: Sequence[int], status: Status) -> dict[int, Path]:
    found = {}
    for count in counts:
        status.update(f"creating {count:,} Experiments and as many Jobs")
        found[count] = folder / str(count)
        waiting_runs.prepare(found[count], count)
    return found


def measured(templates: dict[int, Path], keys: Sequence[str], limits: Limits, status: Status) -> Rows:
    rows: Rows = {key: {} for key in TITLES if key in keys}
    most = max(templates)
    for count, template in templates.items():
        finishes = count >= min(_LEAST_FINISHED, most)
        for waiter in TRIGGERS:
            if waiter.key in rows:
                status.update(f"{count:,} waits: {waiter.title}")
                run = partial(waiting_runs.measure, waiter, finishes=finishes, restarts=count == most)
                rows[waiter.key][count] = _attempt(run, template, limits)
        if katib_waiter.KEY in rows:
            status.update(f"{count:,} waits: {katib_waiter.TITLE}")
            rows[katib_waiter.KEY][count] = _attempt(partial(katib_waiter.measure, finishes=finishes), template, limits)
    return rows


def _attempt(run: Callable[[Path, Limits], Figures], template: Path, limits: Limits) -> Figures:
    try:
        return run(template, limits)
    except Exception as error:  # noqa: BLE001  one that breaks must not cost the figures of all others; it is told
        return {"start": {"not_reached": f"{type(error).__name__}: {error}"}}


def grown(rows: Rows) -> Figures:
    """From the fewest waits to the most, how many times as much each costs."""
    return {key: {cost: growth(by_count, cost) for cost in COSTS} for key, by_count in rows.items()}


if __name__ == "__main__":
    main()
