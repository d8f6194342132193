"""``make bench-controlplane``: what the control plane does in a second, and what it costs."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import creation, fan_out, lists, trials, workloads
from benchmarks.served import Served, control_plane, empty_server

CONNECTIONS = (1, 8)
CREATED = 4000
NO_OP_TRIALS = 160
GOAL_SECONDS = 0.3
Figures = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench-controlplane", description=__doc__)
    made.add_argument("--objects", type=int, default=10_000, help="objects in the list (default: %(default)s)")
    made.add_argument("--watchers", type=int, default=1000, help="default: %(default)s")
    made.add_argument("--trials", type=int, default=10, help="per collector, one at a time (default: %(default)s)")
    return made


def main() -> None:
    options, begin = parser().parse_args(), time.monotonic()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="llmtune-benchmark-") as folder, console.status("measuring") as status:
        figures: Figures = {"start": start()}
        status.update("creating objects")
        figures["create"] = created(Path(folder))
        with control_plane(state_dir=Path(folder, "busy")) as plane:
            status.update("a thousand watchers")
            figures["watch"] = watched(plane, options.watchers)
            status.update("a long list")
            figures["list"] = listed(plane, options.objects)
            figures["rss_mb_full"] = plane.resident_megabytes()
        with control_plane(state_dir=Path(folder, "trials")) as plane:
            status.update("trials")
            figures["trial"] = tried(plane, Path(folder), options.trials)
            figures["rss_mb_after_trials"] = plane.resident_megabytes()
    figures["seconds"] = time.monotonic() - begin
    show(console, figures)
    print("figures:", json.dumps(_rounded(figures)))


def start() -> Figures:
    """The whole process, Python and its imports included."""
    seconds, resident = [], 0.0
    for _ in range(3):
        with control_plane() as plane:
            seconds.append(plane.start_seconds)
            resident = plane.resident_megabytes()
    return {"seconds": statistics.median(seconds), "rss_mb": resident}


def created(folder: Path) -> Figures:
    found: Figures = {}
    for connections in CONNECTIONS:
        with empty_server() as bare:
            found[f"bare_https_{connections}"] = _create(bare, connections)
        with control_plane() as plane:
            found[f"memory_{connections}"] = _create(plane, connections)
        with control_plane(state_dir=folder / f"create-{connections}") as plane:
            found[f"state_dir_{connections}"] = _create(plane, connections)
    return found


def _create(served: Served, connections: int) -> Figures:
    """CPU time is the server's own; it says more than the clock when the machine has other things to do."""
    cpu = served.cpu_seconds()
    rate = asyncio.run(creation.create(served.address, "object", CREATED, connections))
    return {"per_s": rate, "cpu_us": (served.cpu_seconds() - cpu) / CREATED * 1_000_000}


def watched(plane: Served, watchers: int) -> Figures:
    return {
        "watchers": watchers,
        "unhurried": asyncio.run(fan_out.fan_out(plane, watchers, events=10, pause=0.5)),
        "flooded": asyncio.run(fan_out.fan_out(plane, watchers, events=100, pause=0.0)),
    }


def listed(plane: Served, objects: int) -> Figures:
    asyncio.run(creation.create(plane.address, "listed", objects, CONNECTIONS[-1]))
    return {
        "objects": objects,
        "plain": asyncio.run(lists.whole(plane.address, {})),
        "gzip": asyncio.run(lists.whole(plane.address, {"Accept-Encoding": "gzip"})),
        "paged": asyncio.run(lists.paged(plane.address)),
    }


def tried(plane: Served, folder: Path, count: int) -> Figures:
    with trials.accepting_database() as database:
        found: Figures = {
            each.name: against_goal(asyncio.run(trials.overhead(plane.address, each, f"cost-{index}", count)))
            for index, each in enumerate(workloads.workloads(folder, database))
        }
    no_op = workloads.printing("no-op", workloads.batch_job)
    cpu = plane.cpu_seconds()
    rate = asyncio.run(trials.throughput(plane.address, no_op, trials=NO_OP_TRIALS, parallel=8))
    found["parallel_8"] = {"per_minute": rate, "cpu_ms": (plane.cpu_seconds() - cpu) / NO_OP_TRIALS * 1000}
    return found


def against_goal(overhead: Figures) -> Figures:
    """What a trial costs above its own process, and whether that is as little as we want it to be."""
    return {**overhead, "goal_s": GOAL_SECONDS, "met": overhead["overhead_s"] <= GOAL_SECONDS}


def show(console: Console, figures: Figures) -> None:
    create, watch, listing, trial = figures["create"], figures["watch"], figures["list"], figures["trial"]
    table = Table("what", "measured", "beside it", title="Control plane, on one of this machine's cores")
    begun = figures["start"]
    table.add_row("start of the process", f"{begun['seconds']:.2f} s", f"{begun['rss_mb']:.0f} MB resident")
    for connections in CONNECTIONS:
        for where in ("memory", "state_dir"):
            found, bare = create[f"{where}_{connections}"], create[f"bare_https_{connections}"]
            name = f"create, {where.replace('_', ' ')}, {connections} connection(s)"
            beside = f"{found['per_s'] / bare['per_s']:.2f} of an empty HTTPS server's {bare['per_s']:.0f}/s"
            table.add_row(name, f"{found['per_s']:.0f} objects/s, {found['cpu_us']:.0f} us CPU each", beside)
    for name in ("unhurried", "flooded"):
        found = watch[name]
        table.add_row(
            f"{watch['watchers']} watchers, {name}",
            f"{found['events_per_s']:.0f} events/s, p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms",
            f"{found['cpu_us_per_event']:.0f} us CPU an event, {found['delivered']:.0%} delivered",
        )
    for name in ("plain", "gzip"):
        found = listing[name]
        served = "" if name == "plain" or found["compressed"] else "not compressed"
        table.add_row(f"list of {listing['objects']}, {name}", f"{found['ms']:.0f} ms, {found['mb']:.1f} MB", served)
    paged = listing["paged"]
    table.add_row("the same in pages of 500", f"{paged['ms']:.0f} ms", f"slowest {paged['slowest_page_ms']:.0f} ms")
    for name, found in trial.items():
        if "overhead_s" in found:
            verdict = "" if found["met"] else f" (goal: {found['goal_s']} s)"
            table.add_row(
                f"trial, {name}",
                f"{found['overhead_s']:.3f} s above its process{verdict}",
                f"process {found['bare_s']:.3f} s, worst {found['worst_s']:.3f} s, cycle {found['cycle_s']:.3f} s",
            )
    many = trial["parallel_8"]
    table.add_row(
        "no-op trials, 8 in parallel", f"{many['per_minute']:.0f} a minute", f"{many['cpu_ms']:.0f} ms CPU each"
    )
    full, after = figures["rss_mb_full"], figures["rss_mb_after_trials"]
    table.add_row("resident memory", f"{full:.0f} MB with the list", f"{after:.0f} MB after the trials")
    console.print(table)
    console.print(f"{figures['seconds']:.0f} s")


def _rounded(value: Any) -> Any:
    """Four digits that count: no measurement here has more."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
