"""Follows a DAG run: prints what changes, and measures who held a worker when."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import psutil
from rich.console import Console

from demo.airflow_site import AirflowSite
from demo.cluster import Cluster, metric, phase
from demo.processes import Processes

METRIC = "eval_loss"
LEAVING_SECONDS = 8.0
LOOKS_PER_SECOND = 5
FINISHED_TRIAL = ("Succeeded", "Failed", "MetricsUnavailable", "EarlyStopped")


@dataclass
class Transition:
    at: float
    task_id: str
    state: str
    worker_pids: list[int]


@dataclass
class Progress:
    """
    One DAG run as it is seen from outside, once a second.

    :param console: where to print.
    """

    console: Console
    site: AirflowSite
    cluster: Cluster
    processes: Processes
    transitions: list[Transition] = field(default_factory=list)
    workers: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    workers_while_deferred: set[int] = field(default_factory=set)
    _instances: dict[str, str] = field(default_factory=dict)

    def follow(self, dag_id: str, run_id: str) -> str:
        """Return the run's last state."""
        trials_told: dict[str, float | None] = {}
        while True:
            self.processes.check()
            state = self.site.run_state(dag_id, run_id)
            self._see_tasks(dag_id, run_id)
            self._see_trials(trials_told)
            if state in {"success", "failed"}:
                return state
            self._look_for_workers()

    def deferred_seconds(self, task_id: str) -> float:
        """Return for how long a task waited without a worker."""
        mine = [transition for transition in self.transitions if transition.task_id == task_id]
        return sum(after.at - before.at for before, after in pairwise(mine) if before.state == "deferred")

    def _look_for_workers(self) -> None:
        """For a second: a task's worker may live no longer."""
        for _ in range(LOOKS_PER_SECOND):
            time.sleep(1 / LOOKS_PER_SECOND)
            for instance_id, task_id in self._instances.items():
                self.workers[task_id] |= set(worker_pids(instance_id))

    def _see_tasks(self, dag_id: str, run_id: str) -> None:
        last = {transition.task_id: transition.state for transition in self.transitions}
        for instance in self.site.task_instances(dag_id, run_id):
            task_id, state = instance["task_id"], instance["state"]
            self._instances[instance["id"]] = task_id
            if state is None:
                continue
            pids = worker_pids(instance["id"])
            if state == "deferred" and pids:
                pids = self._still_there(dag_id, run_id, instance)
                self.workers_while_deferred |= set(pids)
            if last.get(task_id) != state:
                self.transitions.append(Transition(time.time(), task_id, state, pids))
                worker = f"worker process {pids[0]}" if pids else "no worker process"
                self._print(f"task [bold]{task_id}[/] {state} ({worker})")

    def _still_there(self, dag_id: str, run_id: str, instance: dict[str, Any]) -> list[int]:
        """Return the workers that do not go away: the one that deferred the task needs a moment for it."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while pids := worker_pids(instance["id"]):
            states = {item["id"]: item["state"] for item in self.site.task_instances(dag_id, run_id)}
            if states.get(instance["id"]) != "deferred":
                return []
            if time.monotonic() > deadline:
                return pids
            time.sleep(0.2)
        return []

    def _see_trials(self, told: dict[str, float | None]) -> None:
        for trial in self.cluster.trials():
            name, state = trial["metadata"]["name"], phase(trial)
            if name in told or state not in FINISHED_TRIAL:
                continue
            value = told[name] = metric(trial, METRIC)
            total = self.cluster.experiments()[0]["spec"]["maxTrialCount"]
            score = "no metric" if value is None else f"{METRIC}={value:.4f}"
            best = min((loss for loss in told.values() if loss is not None), default=None)
            so_far = "" if best is None else f", best so far {best:.4f}"
            self._print(f"trial {len(told)}/{total} {state.lower()}: {score}{so_far}")

    def _print(self, text: str) -> None:
        self.console.print(f"[dim]{datetime.now():%H:%M:%S}[/] {text}", highlight=False)


def worker_pids(task_instance_id: str) -> list[int]:
    """
    Return the processes that work on a task instance.

    Airflow's LocalExecutor puts the id of the task instance into its worker's process title.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if task_instance_id in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found
