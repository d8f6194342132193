"""What a trial costs above the process that it runs, and how many run in a minute."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from benchmarks.http_connection import Address, Connection
from benchmarks.push_metric import METHOD
from benchmarks.workloads import EXPERIMENTS, TRIALS, Workload

_SECONDS = 120.0
_FINISHED = {"Succeeded", "Failed", "MetricsUnavailable", "EarlyStopped"}


class TrialError(Exception):
    """Trials did not do what the benchmark is about."""


@dataclass
class Lives:
    """When each trial appeared and when it was finished."""

    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def see(self, trial: Any) -> None:
        name, now = trial["metadata"]["name"], time.monotonic()
        self.began.setdefault(name, now)
        conditions = trial.get("status", {}).get("conditions", [])
        states = {each["type"] for each in conditions if each["status"] == "True"}
        if states & _FINISHED - {"Succeeded"}:
            raise TrialError(f"trial {name}: {conditions[-1]['message']}")
        if "Succeeded" in states:
            self.ended.setdefault(name, now)

    def seconds(self) -> list[float]:
        return [self.ended[name] - self.began[name] for name in self.began]


def bare_seconds(workload: Workload, times: int) -> list[float]:
    """The same command without a control plane, one after the other."""
    spent = []
    for _ in range(times):
        begin = time.monotonic()
        subprocess.run(["sh", "-c", workload.bare], check=True, stdout=subprocess.DEVNULL)
        spent.append(time.monotonic() - begin)
    return spent


async def run_experiment(address: Address, manifest: Any) -> tuple[Lives, float]:
    """From creation to the last trial's end, and the seconds in between; the Experiment is deleted afterwards."""
    lives, wanted, name = Lives(), manifest["spec"]["maxTrialCount"], manifest["metadata"]["name"]
    async with Connection(address) as watching, asyncio.timeout(_SECONDS):
        async with Connection(address) as asking:
            listed = (await asking.ask("GET", f"{TRIALS}?limit=1")).json()
            since = listed["metadata"]["resourceVersion"]
            begin = time.monotonic()
            await asking.ask("POST", EXPERIMENTS, json.dumps(manifest).encode())
        async for event in watching.events(f"{TRIALS}?watch=1&resourceVersion={since}"):
            # Trials of the Experiment before go in these very moments.
            if event["type"] != "DELETED" and event["object"]["metadata"]["name"].startswith(f"{name}-"):
                lives.see(event["object"])
            if len(lives.ended) == wanted:
                break
        seconds = time.monotonic() - begin
    async with Connection(address) as asking:
        await asking.ask("DELETE", f"{EXPERIMENTS}/{name}")
    return lives, seconds


async def overhead(address: Address, workload: Workload, name: str, trials: int) -> dict[str, float]:
    """Trials one at a time. ``cycle``: of an Experiment's time the share of one, with asking for a suggestion."""
    # Before and after, so that a machine that becomes slower or faster is noticed in both.
    before = bare_seconds(workload, trials)
    lives, seconds = await run_experiment(address, workload.experiment(name, trials=trials, parallel=1))
    bare, spent = statistics.median(before + bare_seconds(workload, trials)), lives.seconds()
    return {
        "bare_s": bare,
        "trial_s": statistics.median(spent),
        "overhead_s": statistics.median(spent) - bare,
        "worst_s": max(spent) - bare,
        "cycle_s": seconds / trials,
    }


async def throughput(address: Address, workload: Workload, trials: int, parallel: int) -> float:
    """Trials a minute."""
    _, seconds = await run_experiment(address, workload.experiment("many", trials=trials, parallel=parallel))
    return trials / seconds * 60


class _Accepting(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    def service(self, call: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda *_: b"") if call.method == METHOD else None


@contextlib.contextmanager
def accepting_database() -> Iterator[str]:
    """A server that takes every push and does nothing with it; yields its address."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[_Accepting()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
