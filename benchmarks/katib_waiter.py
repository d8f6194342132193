"""Katib's own client, a thread for each wait: a program of its own environment, measured from outside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.idle_server import NAMESPACE, WARM_NAMESPACE, IdleServer, idle_server
from benchmarks.served import MEGABYTE
from benchmarks.waiting_figures import latency
from benchmarks.waiting_objects import EXPERIMENTS, load
from benchmarks.waiting_runs import SETTLE_SECONDS, Limits, Reading, connections, copy_of, finish

Figures = dict[str, Any]
KEY, TITLE = "katib_client", "KatibClient in threads"
PYTHON = Path(__file__).parents[1] / ".interop" / "katib" / "bin" / "python"
_PROGRAM = Path(__file__).with_name("katib_client_waits.py")
_PRINTED = "printed"
_FIRST_REQUEST = "get experiments"
# Between its start and the first request: its imports.
_IMPORT_SECONDS = 15.0
# More than one of its polls, so that all have looked once more.
_POLL_SECONDS = 20.0
_MOST_FINISHED = 0.8


def measure(template: Path, limits: Limits, *, finishes: bool) -> Figures:
    """Of the triggers' measurements those that it has a counterpart for."""
    if not PYTHON.exists():
        return {"start": {"not_reached": "`make interop` makes its environment"}}
    alone = _fixed_megabytes(template)
    with copy_of(template) as folder, idle_server(folder) as server:
        names = list(load(folder / f"experiments-{NAMESPACE}.json"))
        starting = min(limits.start_seconds, _IMPORT_SECONDS + len(names) / 50)
        seconds = starting + SETTLE_SECONDS + limits.idle_seconds
        if finishes:
            seconds += limits.finish_seconds + _POLL_SECONDS
        with _running(server, folder, NAMESPACE, names, seconds) as program:
            found: Figures = {"start": _start(server, program, len(names), starting, limits)}
            found["idle"] = _idle(server, psutil.Process(program.pid), limits, len(names), alone)
            if finishes:
                count = min(int(limits.rate * limits.finish_seconds), int(len(names) * _MOST_FINISHED))
                sent = finish(server, EXPERIMENTS, NAMESPACE, names[:count], limits.rate)
                answer = _answer(program, folder / _PRINTED)
                found["finish"] = latency(sent, answer["finished"], time.time())
                failures = list(answer["failed"].values())
                found |= {"failed": len(failures), "first_failure": failures[0] if failures else ""}
        return found


def _start(server: IdleServer, program: subprocess.Popen[bytes], count: int, most: float, limits: Limits) -> Figures:
    begin, process = time.monotonic(), psutil.Process(program.pid)
    while True:
        asked, seconds = server.requests()[_FIRST_REQUEST], time.monotonic() - begin
        if asked >= count:
            time.sleep(SETTLE_SECONDS)
            return {"start_s": seconds}
        resident = process.memory_info().rss / MEGABYTE
        if seconds > most or resident > limits.memory_mb or program.poll() is not None:
            limit = f"{seconds:.0f} s" if resident <= limits.memory_mb else f"{resident:,.0f} MB"
            return {"start_s": seconds, "not_reached": f"{asked:,} of {count:,} asked once in {limit}"}
        time.sleep(0.25)


def _idle(server: IdleServer, process: psutil.Process, limits: Limits, count: int, alone: float) -> Figures:
    before = Reading.of(server, process)
    time.sleep(limits.idle_seconds)
    spent = before.per_minute(Reading.of(server, process))
    memory = _megabytes(process) - alone
    return {
        **spent,
        "memory_mb": memory,
        "kb_per_wait": memory * 1000 / count,
        "connections": connections(server, process),
    }


def _fixed_megabytes(template: Path) -> float:
    """Of one wait: the interpreter and all modules."""
    with copy_of(template) as folder, idle_server(folder) as server:
        names = list(load(folder / f"experiments-{WARM_NAMESPACE}.json"))
        with _running(server, folder, WARM_NAMESPACE, names, _IMPORT_SECONDS) as program:
            deadline = time.monotonic() + _IMPORT_SECONDS
            while not server.requests()[_FIRST_REQUEST] and time.monotonic() < deadline:
                time.sleep(0.1)
            found = _megabytes(psutil.Process(program.pid))
            finish(server, EXPERIMENTS, WARM_NAMESPACE, names, 1)
        return found


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / MEGABYTE


def _answer(program: subprocess.Popen[bytes], printed: Path) -> Any:
    program.wait()
    return json.loads(printed.read_text(encoding="utf-8").splitlines()[-1])


@contextlib.contextmanager
def _running(
    server: IdleServer, folder: Path, namespace: str, names: Sequence[str], seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """It prints to a file: the client tells each status that it finds, and would wait for a pipe to be read."""
    file = folder / "names"
    file.write_text("\n".join(names), encoding="utf-8")
    command = [str(PYTHON), str(_PROGRAM), "--kubeconfig", str(server.kubeconfig), "--namespace", namespace]
    command += ["--names-file", str(file), "--seconds", str(seconds)]
    with (folder / _PRINTED).open("wb") as printed, subprocess.Popen(command, stdout=printed) as program:
        try:
            yield program
        finally:
            program.kill()
