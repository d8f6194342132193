"""One waiter with so many waits: how it starts, what it costs while nothing happens, how fast it is told, a restart."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import waiting_objects
from benchmarks.idle_server import NAMESPACE, WARM_NAMESPACE, IdleServer, cpu_seconds, idle_server
from benchmarks.served import MEGABYTE
from benchmarks.waiters import Triggerer, Waiter, triggerer
from benchmarks.waiting_figures import latency
from benchmarks.waiting_objects import EXPERIMENTS, JOBS, Kind

Figures = dict[str, Any]
# After this, a window of 30 s sees as many polls as there are in the long run, be they 10 or 15 s apart.
SETTLE_SECONDS = 5.0
_WARM_SECONDS, _WARM_SETTLE_SECONDS = 60.0, 2.0
# So many stay, for the restart.
_MOST_FINISHED = 0.8
_AFTER_RESTART, _AFTER_RESTART_RATE = 20, 10.0
_RESTART_SECONDS = 15.0
# Watches end after 240 to 300 s: no window of some seconds sees one that begins anew.
WATCH_MINUTES = 4.5


@dataclass(frozen=True)
class Limits:
    idle_seconds: float
    finish_seconds: float
    rate: float
    """Completions a second."""
    start_seconds: float
    drain_seconds: float
    """How long after the last completion one that was not told yet is waited for."""
    memory_mb: float


@dataclass(frozen=True)
class Reading:
    at: float
    requests: Counter[str]
    cpu: float
    server_cpu: float

    @classmethod
    def of(cls, server: IdleServer, process: psutil.Process) -> Reading:
        return cls(time.monotonic(), server.requests(), cpu_seconds(process), cpu_seconds(server.process))

    def per_minute(self, later: Reading) -> Figures:
        minutes = (later.at - self.at) / 60
        return {
            "requests_per_minute": (later.requests - self.requests).total() / minutes,
            "cpu_s_per_minute": (later.cpu - self.cpu) / minutes,
            "server_cpu_s_per_minute": (later.server_cpu - self.server_cpu) / minutes,
        }


class Site:
    """A server with so many objects on it, and one who waits for all of them."""

    def __init__(self, server: IdleServer, waiter: Waiter, process: Triggerer, folder: Path, limits: Limits) -> None:
        self.server = server
        self.waiter = waiter
        self.triggerer = process
        self._limits = limits
        kind = waiter.kind or JOBS
        self._warm = waiting_objects.load(folder / f"{kind.resource.plural}-{WARM_NAMESPACE}.json")
        self._uids = waiting_objects.load(folder / f"{kind.resource.plural}-{NAMESPACE}.json")
        self._names = list(self._uids)
        self._finished = 0
        self._memory = 0.0

    def warm_up(self) -> Figures:
        """Wait for one object in a namespace of its own, so that all modules are loaded; what that blocks is told."""
        self.triggerer.load(self.waiter, WARM_NAMESPACE, self._warm, self.server.kubeconfig)
        self.triggerer.ask("forget")
        self.triggerer.ask("start")
        if self.waiter.kind is not None:
            _until(lambda: self.server.requests()[self.waiter.first_request] > 0, _WARM_SECONDS)
            finish(self.server, self.waiter.kind, WARM_NAMESPACE, list(self._warm), self._limits.rate)
        if not self.triggerer.wait_until(lambda look: look["fired"] == 1 and not look["running"], _WARM_SECONDS):
            raise RuntimeError(f"{self.waiter.title} is not told of its first object: {self.triggerer.ask('look')}")
        time.sleep(_WARM_SETTLE_SECONDS)
        self._memory = self._megabytes()
        return {"first_trigger_blocked_ms": _blocked(self.triggerer)["blocked_ms"]}

    def start(self) -> Figures:
        """Start all at once; a start that takes too long, or too much memory, is told with how far it came."""
        count = len(self._names)
        self.triggerer.load(self.waiter, NAMESPACE, self._uids, self.server.kubeconfig)
        before, begin = self.server.requests(), time.monotonic()
        self.triggerer.ask("forget")
        self.triggerer.ask("start")
        while True:
            running = self.triggerer.ask("look")["running"]
            asked = (self.server.requests() - before)[self.waiter.first_request]
            seconds = time.monotonic() - begin
            if running >= count and asked >= self.waiter.requests_to_begin(count):
                time.sleep(SETTLE_SECONDS)
                return {"start_s": seconds, "start_requests": self._asked_since(before), **_blocked(self.triggerer)}
            resident = self.triggerer.process.memory_info().rss / MEGABYTE
            if seconds > self._limits.start_seconds or resident > self._limits.memory_mb:
                begun = min(running, asked) if self.waiter.each and self.waiter.first_request else running
                limit = f"{seconds:.0f} s" if resident <= self._limits.memory_mb else f"{resident:,.0f} MB"
                reason = f"{begun:,} of {count:,} started in {limit}"
                return {"start_s": seconds, "not_reached": reason, **_blocked(self.triggerer)}
            time.sleep(0.25)

    def idle(self) -> Figures:
        before = Reading.of(self.server, self.triggerer.process)
        time.sleep(self._limits.idle_seconds)
        after = Reading.of(self.server, self.triggerer.process)
        memory = self._megabytes() - self._memory
        opened = connections(self.server, self.triggerer.process)
        return {
            **before.per_minute(after),
            "renewals_per_minute": opened * self.waiter.requests_to_renew / WATCH_MINUTES,
            "memory_mb": memory,
            "kb_per_wait": memory * 1000 / len(self._names),
            "connections": opened,
            "kinds_watched": sum(request.startswith("watch ") for request in after.requests),
        }

    def finish_some(self) -> Figures:
        kind = self.waiter.kind
        assert kind is not None, "nobody ends a sleep"
        limits, look = self._limits, self.triggerer.ask("look")
        count = min(int(limits.rate * limits.finish_seconds), int(len(self._names) * _MOST_FINISHED))
        before = Reading.of(self.server, self.triggerer.process)
        sent = finish(self.server, kind, NAMESPACE, self._next(count), limits.rate)
        fired = look["fired"] + len(sent)
        self.triggerer.wait_until(lambda now: now["fired"] + now["failed"] >= fired, limits.drain_seconds)
        after = Reading.of(self.server, self.triggerer.process)
        spent = before.per_minute(after)
        return {
            **latency(sent, self.triggerer.fired(self._names), time.time()),
            "cpu_s_per_minute": spent["cpu_s_per_minute"],
            "server_cpu_s_per_minute": spent["server_cpu_s_per_minute"],
        }

    def restart(self) -> Figures:
        """Kill the server under all who still wait, start it on the same port, end a few: are these told?"""
        kind = self.waiter.kind
        assert kind is not None, "as above"
        self.triggerer.ask("forget")
        before = self.triggerer.ask("look")
        self.server.kill()
        down, up = self.server.start(), time.time()
        names = list(finish(self.server, kind, NAMESPACE, self._next(_AFTER_RESTART), _AFTER_RESTART_RATE))
        # Not by their number: some that were ended before the restart may still be told.
        _until(lambda: _left(self.triggerer, self._names, names) == 0, self._limits.drain_seconds)
        time.sleep(max(0.0, up + _RESTART_SECONDS - time.time()))
        told = {name: at for name, at in self.triggerer.fired(self._names).items() if name in names}
        return {
            "down_s": down,
            "requests": self._asked_since(Counter()),
            "finished": len(names),
            "told": len(told),
            "slowest_s": max(told.values()) - up if told else None,
            "failed": self.triggerer.ask("look")["failed"] - before["failed"],
            **_blocked(self.triggerer),
        }

    def _next(self, count: int) -> list[str]:
        begin, self._finished = self._finished, self._finished + count
        return self._names[begin : self._finished]

    def _asked_since(self, before: Counter[str]) -> int:
        """Without what the benchmark itself asked for."""
        asked = self.server.requests() - before
        return sum(count for request, count in asked.items() if not request.startswith("patch "))

    def _megabytes(self) -> float:
        return float(self.triggerer.process.memory_full_info().uss) / MEGABYTE


@contextlib.contextmanager
def site_of(waiter: Waiter, template: Path, limits: Limits) -> Iterator[Site]:
    """``template`` is a folder that :func:`prepare` has made."""
    with copy_of(template) as folder, idle_server(folder) as server, triggerer(server.kubeconfig) as process:
        yield Site(server, waiter, process, folder, limits)


def measure(waiter: Waiter, template: Path, limits: Limits, *, finishes: bool, restarts: bool) -> Figures:
    with site_of(waiter, template, limits) as site:
        found = {**site.warm_up(), "start": site.start(), "idle": site.idle()}
        if waiter.kind is not None and finishes:
            found["finish"] = site.finish_some()
        if waiter.kind is not None and restarts:
            found["restart"] = site.restart()
        look = site.triggerer.ask("look")
        ended = {"failed": look["failed"], "first_failure": look["first_failure"], "messages": look["messages"]}
        return {**found, **ended}


@contextlib.contextmanager
def long_idle(waiter: Waiter, template: Path, limits: Limits, found: Figures) -> Iterator[None]:
    """Let it wait beside whatever is measured in this context, long enough for watches to reach their time limit."""
    with site_of(waiter, template, limits) as site:
        site.warm_up()
        site.start()
        before = Reading.of(site.server, site.triggerer.process)
        yield
        after = Reading.of(site.server, site.triggerer.process)
        found[waiter.key] = {"seconds": after.at - before.at, **before.per_minute(after)}


def prepare(folder: Path, count: int) -> None:
    """Fill a state directory with so many of each kind, and remember their uids beside it."""
    folder.mkdir()
    with idle_server(folder) as server:
        for kind in (EXPERIMENTS, JOBS):
            for namespace, wanted in ((WARM_NAMESPACE, 1), (NAMESPACE, count)):
                uids = asyncio.run(waiting_objects.fill(server.address, kind, namespace, wanted))
                waiting_objects.save(uids, folder / f"{kind.resource.plural}-{namespace}.json")


def finish(server: IdleServer, kind: Kind, namespace: str, names: Sequence[str], rate: float) -> Mapping[str, float]:
    return asyncio.run(waiting_objects.finish(server.address, kind, namespace, names, rate))


def _left(process: Triggerer, loaded: Sequence[str], names: Sequence[str]) -> int:
    """How many of these have not been told."""
    return len(set(names) - process.fired(loaded).keys())


def connections(server: IdleServer, process: psutil.Process) -> int:
    """Those that are open from the one to the other."""
    found = process.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.raddr.port == server.address.port for one in found)


@contextlib.contextmanager
def copy_of(template: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmtune-waiting-") as folder:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        yield Path(folder)


def _blocked(process: Triggerer) -> Figures:
    look = process.ask("look")
    return {
        "blocked_ms": look["blocked_s"] * 1000,
        "blocked_without_gc_ms": look["blocked_without_gc_s"] * 1000,
        "blocked_cpu_ms": look["blocked_cpu_s"] * 1000,
        "gc_ms": look["gc_s"] * 1000,
    }


def _until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
