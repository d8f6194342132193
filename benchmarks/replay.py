"""``make replay``: a day of Experiments, one after the other, on a control plane whose day takes minutes.

Each is deleted once ten newer ones have completed, as a shop does that looks at its results and then tidies up.
What must hold: all complete, memory is flat, and no process, file descriptor or object is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import workloads
from benchmarks.http_connection import Connection
from benchmarks.served import MEGABYTE, Served, fast_control_plane

DAY_SECONDS = 24 * 3600
KEPT = 10
# Run before the day, as a share of its Experiments: until the bounded history of changes, which watches read from, has
# been full once for every kind. Events take longest, some ninety Experiments.
WARM_UP = 0.5
# Of the day, not looked at: the warm-up knows no pauses, and its Events go only after an hour.
SETTLING = 0.25
# A shorter day says nothing about a trend: its warm-up is too short as well.
LEAST_SAMPLES = 90
# The allocator's fragments grow by 1 to 5 % a day; one object forgotten with every Trial would be more than this.
GROWTH_BOUND = 0.08
# Connections of this client that the server has not noticed to be gone.
SPARE_DESCRIPTORS = 4
_COUNTED = {
    kind: f"/apis/{group}/namespaces/default/{kind}" if group else f"/api/v1/namespaces/default/{kind}"
    for kind, group in {
        "experiments": "kubeflow.org/v1beta1",
        "suggestions": "kubeflow.org/v1beta1",
        "trials": "kubeflow.org/v1beta1",
        "jobs": "batch/v1",
        "pods": "",
        "events": "",
    }.items()
}
_EXPERIMENT_SECONDS = 120.0


class ReplayError(Exception):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Sample:
    """The control plane between two Experiments."""

    hour: float
    resident_mb: float
    descriptors: int
    children: int
    threads: int
    objects: int
    disk_mb: float


class Day:
    """One run: starts Experiments on time, deletes old ones, looks at the process in between."""

    def __init__(self, plane: Served, state_dir: Path, speed: float) -> None:
        self.samples: list[Sample] = []
        self._plane = plane
        self._state_dir = state_dir
        self._speed = speed
        self._begin = time.monotonic()
        self._kept: deque[str] = deque()

    async def run(self, experiments: int, trials: int, parallel: int) -> None:
        for number in range(int(experiments * WARM_UP)):
            await self._experiment(f"warm-up-{number}", trials, parallel)
        self._begin = time.monotonic()
        await self._look()
        for number in range(experiments):
            await asyncio.sleep(self._begin + DAY_SECONDS / self._speed * number / experiments - time.monotonic())
            await self._experiment(f"replay-{number}", trials, parallel)
            await self._look()
        while self._kept:
            await self._delete(self._kept.popleft())
        await self._settle()

    async def _experiment(self, name: str, trials: int, parallel: int) -> None:
        workload = workloads.printing("no-op", workloads.batch_job)
        await self._complete(name, workload.experiment(name, trials=trials, parallel=parallel), trials)
        self._kept.append(name)
        if len(self._kept) > KEPT:
            await self._delete(self._kept.popleft())

    async def _delete(self, name: str) -> None:
        async with Connection(self._plane.address) as connection:
            await connection.ask("DELETE", f"{workloads.EXPERIMENTS}/{name}")

    async def _complete(self, name: str, manifest: workloads.Object, trials: int) -> None:
        path = f"{workloads.EXPERIMENTS}?watch=1&fieldSelector=metadata.name%3D{name}"
        async with Connection(self._plane.address) as watching, asyncio.timeout(_EXPERIMENT_SECONDS):
            async with Connection(self._plane.address) as asking:
                await asking.ask("POST", workloads.EXPERIMENTS, json.dumps(manifest).encode())
            async for event in watching.events(path):
                status = event["object"].get("status", {})
                now = {each["type"]: each["status"] for each in status.get("conditions", ())}
                if now.get("Failed") == "True":
                    raise ReplayError(f"{name} failed: {status['conditions'][-1]['message']}")
                if now.get("Succeeded") == "True":
                    if status.get("trialsSucceeded") != trials:
                        raise ReplayError(f"{name} completed with {status.get('trialsSucceeded')} of {trials} trials")
                    return

    async def _settle(self) -> None:
        """What is deleted goes in its own time; nothing of it may be left in the end."""
        deadline = time.monotonic() + _EXPERIMENT_SECONDS
        while True:
            left = await self._count(without="events")
            await asyncio.sleep(0.2)
            if not left or time.monotonic() > deadline:
                await self._look()
                if left:
                    raise ReplayError(f"{left} objects are left although their Experiments were deleted")
                return

    async def _look(self) -> None:
        process = self._plane.process
        self.samples.append(
            Sample(
                hour=(time.monotonic() - self._begin) * self._speed / 3600,
                resident_mb=self._plane.resident_megabytes(),
                descriptors=process.num_fds(),
                children=len(process.children(recursive=True)),
                threads=process.num_threads(),
                objects=await self._count(),
                disk_mb=_disk_bytes(self._state_dir) / MEGABYTE,
            )
        )

    async def _count(self, without: str = "") -> int:
        total = 0
        # A new connection each time: an idle one is closed by the server after some seconds.
        async with Connection(self._plane.address) as connection:
            for kind, path in _COUNTED.items():
                if kind != without:
                    page = (await connection.ask("GET", f"{path}?limit=1")).json()
                    total += len(page["items"]) + page["metadata"].get("remainingItemCount", 0)
        return total


def _disk_bytes(folder: Path) -> int:
    """Files and folders come and go while this looks."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total


def growth(samples: list[Sample]) -> float | None:
    """By how much of itself memory grows in a day, by a straight line; the last sample is of after the tidying."""
    day = samples[int(len(samples) * SETTLING) : -1]
    if len(day) < LEAST_SAMPLES:
        return None
    line = statistics.linear_regression([one.hour for one in day], [one.resident_mb for one in day])
    return line.slope * 24 / statistics.mean(one.resident_mb for one in day)


def mistakes(samples: list[Sample], survivors: list[psutil.Process]) -> list[str]:
    """Everything that does not hold. What the warm-up brought up to serve all that follows may stay."""
    first, last, grown = samples[0], samples[-1], growth(samples)
    found = []
    if grown is not None and grown > GROWTH_BOUND:
        found.append(f"memory grows by {grown:.1%} a day, the bound is {GROWTH_BOUND:.0%}")
    if last.children > first.children:
        found.append(f"{last.children - first.children} child processes are left")
    if last.descriptors > first.descriptors + SPARE_DESCRIPTORS:
        found.append(f"{last.descriptors - first.descriptors} file descriptors are left")
    if survivors:
        found.append(f"{len(survivors)} processes outlive the control plane")
    return found


def show(console: Console, samples: list[Sample]) -> None:
    table = Table("hour", "resident", "descriptors", "children", "threads", "objects", "on disk", title="A day")
    step = max(1, len(samples) // 12)
    for one in [*samples[:-1:step], samples[-1]]:
        table.add_row(
            f"{one.hour:.1f}",
            f"{one.resident_mb:.1f} MB",
            str(one.descriptors),
            str(one.children),
            str(one.threads),
            str(one.objects),
            f"{one.disk_mb:.2f} MB",
        )
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make replay", description=__doc__)
    parser.add_argument("--experiments", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=20, help="of each (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=8, help="trials at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=300.0, help="that the day takes (default: %(default)s)")
    options = parser.parse_args()
    console, begin = Console(width=120), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llmtune-replay-") as folder, console.status("replaying"):
        state_dir = Path(folder, "state")
        speed = DAY_SECONDS / options.seconds
        with fast_control_plane(state_dir, speed) as plane:
            day = Day(plane, state_dir, speed)
            asyncio.run(day.run(options.experiments, options.trials, options.parallel))
            family = plane.process.children(recursive=True)
        _, survivors = psutil.wait_procs(family, timeout=5)
    samples = day.samples
    show(console, samples)
    wrong, grown = mistakes(samples, survivors), growth(samples)
    console.print(f"{options.experiments} Experiments completed, the newest {KEPT} are kept")
    console.print("too few for a trend of memory" if grown is None else f"memory grows by {grown:.2%} a day")
    for each in wrong:
        console.print(f"[bold red]{each}[/]")
    figures = {
        "experiments": options.experiments,
        "trials": options.experiments * options.trials,
        "kept": KEPT,
        "seconds": round(time.monotonic() - begin, 1),
        "memory_growth_per_day": None if grown is None else round(grown, 5),
        "rss_mb_mean": round(statistics.mean(one.resident_mb for one in samples), 1),
        "rss_mb_peak": round(max(one.resident_mb for one in samples), 1),
        "first": asdict(samples[0]),
        "last": asdict(samples[-1]),
        "wrong": wrong,
    }
    print("figures:", json.dumps(figures))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
