"""
Airflow's own trigger runner in a process of its own, without the database behind it: what a triggerer's child runs.

It does what ``TriggerRunner.arun`` does, save that triggers come from a file and events stay here. Each line on stdin
is a command, answered by one line of JSON; the thread that answers is not the one that is measured.

``load PATH``
    Read the triggers: ``{"classpath": ..., "arguments": [{...}, ...]}``.
``start``
    Hand those that were loaded to the runner, all at once.
``look``
    How many run, have fired and have failed, and for how long the event loop was blocked since the last ``forget``.
``forget``
    Forget how long the event loop was blocked.
``fired``
    Since the last ``load``: each fired trigger's place in the file, when by the wall clock, and whether it succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, TriggerRunner
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import OKResponse
from airflow.sdk.log import configure_logging, reset_logging

from benchmarks.idle_plane import allow_connections

_LOOP_SECONDS = 1.0
_BEAT_SECONDS = 0.005
Answer = dict[str, Any]


@dataclass
class Watchdog:
    """
    The longest time for which the event loop did not come round.

    Airflow has a million objects before the first trigger starts, and Python collects its garbage in one piece; so the
    longest time is kept also without collections. And as the CPU time of the loop's own thread: what is missing from
    that, it waited for something that blocks, or for a core.
    """

    longest: float = 0.0
    longest_without_gc: float = 0.0
    longest_cpu: float = 0.0
    longest_gc: float = 0.0
    _last: float = field(default_factory=time.monotonic)
    _collected: float = 0.0
    _collection_began: float = 0.0

    async def run(self) -> None:
        gc.callbacks.append(self._on_collection)
        while True:
            self._last, self._collected, cpu = time.monotonic(), 0.0, time.thread_time()
            await asyncio.sleep(_BEAT_SECONDS)
            late = self._late()
            self.longest_cpu = max(self.longest_cpu, time.thread_time() - cpu)
            self.longest = max(self.longest, late)
            self.longest_without_gc = max(self.longest_without_gc, late - self._collected)

    def blocked(self) -> float:
        """With the time that it is blocked right now."""
        return max(self.longest, self._late())

    def forget(self) -> None:
        self.longest = self.longest_without_gc = self.longest_cpu = self.longest_gc = 0.0
        self._last = time.monotonic()

    def _late(self) -> float:
        return time.monotonic() - self._last - _BEAT_SECONDS

    def _on_collection(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._collection_began = time.monotonic()
            return
        seconds = time.monotonic() - self._collection_began
        self.longest_gc = max(self.longest_gc, seconds)
        self._collected += seconds


class Events(deque[TriggerEventEntry]):
    """The runner's queue of events, which remembers when each was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.fired: list[tuple[int, float, bool]] = []

    def append(self, entry: TriggerEventEntry) -> None:
        payload = entry.event.payload
        succeeded = str(payload.get("phase") or payload.get("status")).lower() in {"succeeded", "success"}
        self.fired.append((entry.trigger_id, time.time(), succeeded))
        super().append(entry)


class Supervisor:
    """In place of the parent process, to which triggers send XComs: takes and counts them."""

    def __init__(self) -> None:
        self.messages = 0

    async def asend(self, message: Any) -> OKResponse:
        return self.send(message)

    def send(self, message: Any) -> OKResponse:  # noqa: ARG002  its interface
        self.messages += 1
        return OKResponse(ok=True)


class Triggerer:
    def __init__(self, supervisor: Supervisor) -> None:
        self.runner = TriggerRunner()  # type: ignore[no-untyped-call]
        self.watchdog = Watchdog()
        self._supervisor = supervisor
        self._events = self.runner.events = Events()
        self._failures = 0
        self._first_failure = ""
        self._loaded: list[RunTrigger] = []
        self._next_id = self._first_id = 1

    async def run(self) -> None:
        watching = (self.watchdog.run(), self.runner.block_watchdog())  # type: ignore[no-untyped-call]
        tasks = [asyncio.create_task(each) for each in watching]
        try:
            while True:
                finished = await self.runner.cleanup_finished_triggers()
                self._note(self.runner.process_trigger_events(finished).failures or [])
                await self.runner.create_triggers()  # type: ignore[no-untyped-call]
                await self.runner.cancel_triggers()  # type: ignore[no-untyped-call]
                await asyncio.sleep(_LOOP_SECONDS)
        finally:
            for task in tasks:
                task.cancel()

    def answer(self, line: str) -> Answer:
        command, _, argument = line.strip().partition(" ")
        if command == "load":
            self._load(json.loads(Path(argument).read_text(encoding="utf-8")))
        elif command == "start":
            self.runner.to_create.extend(self._loaded)
            self._loaded = []
        elif command == "forget":
            self.watchdog.forget()
        elif command == "fired":
            fired = [one for one in self._events.fired if one[0] >= self._first_id]
            return {"fired": [(number - self._first_id, at, good) for number, at, good in fired]}
        return self._look()

    def _look(self) -> Answer:
        return {
            "running": len(self.runner.triggers),
            "fired": len(self._events.fired),
            "failed": self._failures,
            "first_failure": self._first_failure,
            "blocked_s": self.watchdog.blocked(),
            "blocked_without_gc_s": self.watchdog.longest_without_gc,
            "blocked_cpu_s": self.watchdog.longest_cpu,
            "gc_s": self.watchdog.longest_gc,
            "messages": self._supervisor.messages,
        }

    def _note(self, failures: list[tuple[int, list[str] | None]]) -> None:
        for _, trace in failures:
            self._failures += 1
            self._first_failure = self._first_failure or (trace or ["no event"])[-1].strip()[:300]

    def _load(self, triggers: Any) -> None:
        self._first_id = self._next_id
        self._loaded = [self._workload(triggers["classpath"], arguments) for arguments in triggers["arguments"]]

    def _workload(self, classpath: str, arguments: dict[str, Any]) -> RunTrigger:
        number, self._next_id = self._next_id, self._next_id + 1
        ti = TaskInstanceDTO(
            id=uuid.uuid4(),
            dag_version_id=uuid.uuid4(),
            dag_id="retune_every_model",
            task_id="tune",
            run_id="scheduled__2026-11-22T02:00:00+00:00",
            map_index=number,
            try_number=1,
            pool_slots=1,
            priority_weight=1,
        )
        return RunTrigger(id=number, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), ti=ti)


def serve(triggerer: Triggerer) -> None:
    """Answer until stdin ends, then end the process: nothing in it is worth a farewell."""
    for line in sys.stdin:
        print(json.dumps(triggerer.answer(line)), flush=True)
    os._exit(0)


def log_as_airflow_does() -> None:
    """Its JSON lines, to nowhere: what they cost is part of what a trigger costs."""
    reset_logging()  # type: ignore[no-untyped-call]
    nowhere = open(os.devnull, "wb", buffering=0)  # noqa: PTH123, SIM115  open until the end
    configure_logging(json_output=True, output=nowhere, sending_to_supervisor=True)


def main() -> None:
    allow_connections()
    log_as_airflow_does()
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
    supervisor = Supervisor()
    task_runner.SUPERVISOR_COMMS = supervisor  # type: ignore[assignment]
    triggerer = Triggerer(supervisor)
    threading.Thread(target=serve, args=[triggerer], daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(triggerer.run())


if __name__ == "__main__":
    main()
