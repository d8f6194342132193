"""An Experiment's whole life without a process: real registry, admission and Katib controllers on a clock that the
test moves, with jobs that end as the test says. What the controllers watch reaches them as it would from a watch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, NAMESPACE, PYTORCH_JOB, SUGGESTION, TRIAL, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import timestamp
from airflow_llmtune.controlplane.controllers.early_stopping import EarlyStoppingService
from airflow_llmtune.controlplane.controllers.experiment import ExperimentController
from airflow_llmtune.controlplane.controllers.experiment_status import trial_state
from airflow_llmtune.controlplane.controllers.runtime import Controller, controller_of
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.controllers.trial import TrialController
from airflow_llmtune.controlplane.db_manager import DBManager, MetricLog
from airflow_llmtune.controlplane.store import Store
from objects import Object

Item = tuple[int, tuple[str, str]]
"""Which controller, and the key that it shall reconcile."""

LONGEST_QUIET = 400
"""Reconciles without a rest: more is a loop that feeds itself."""


class Simulation:
    def __init__(
        self, volumes: Path, *, strict: bool = False, seed: int = 0, observe: Callable[[Object], None] | None = None
    ) -> None:
        self.now = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
        self.store = Store()
        self.registry = Registry(self.store, KatibAdmission(self.store), self.clock)
        labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
        for name in ("default", "other"):
            self.registry.create(NAMESPACE, {"metadata": {"name": name, "labels": labels}})
        self.db_manager = DBManager()
        self.early_stopping = EarlyStoppingService(self.registry, self.clock, strict=strict)
        self.errors: list[str] = []
        self.observe = observe or (lambda _: None)
        self._random = Random(seed)
        self._controllers: list[Controller] = [
            ExperimentController(self.registry, self.clock, strict=strict),
            SuggestionController(self.registry, self.clock, self.db_manager, volumes, strict=strict),
            TrialController(self.registry, self.db_manager, self.clock, strict=strict),
        ]
        kinds = {kind for each in self._controllers for kind in (each.kind, *each.owns)}
        self._watched = {kind: self.store.subscribe(kind) for kind in sorted(kinds, key=str)}
        self._dirty: dict[Item, None] = {}
        self._timers: list[tuple[datetime, Item]] = []
        self._failures: dict[Item, int] = {}

    def clock(self) -> datetime:
        return self.now

    # What the test looks at

    def experiment(self, namespace: str = "default", name: str = "exp") -> Object:
        return self.registry.get(EXPERIMENT, namespace, name)

    def suggestion(self, namespace: str = "default", name: str = "exp") -> Object | None:
        return self.registry.find(SUGGESTION, namespace, name)

    def trials(self, *states: str) -> list[Object]:
        found = self.registry.list(TRIAL)[0]
        return [trial for trial in found if not states or trial_state(trial) in states]

    def job(self, trial: Object) -> Object | None:
        """Whatever its kind: no other Trial has its name."""
        key = (trial["metadata"]["namespace"], trial["metadata"]["name"])
        return next((job for kind in TrialController.owns if (job := self.registry.find(kind, *key))), None)

    # What the test does

    def create(self, experiment: Object) -> Object:
        return self.registry.create(EXPERIMENT, experiment)

    def edit(self, **spec: object) -> None:
        stored = self.experiment()
        self.registry.update(EXPERIMENT, {**stored, "spec": {**stored["spec"], **spec}})

    def report(self, trial: Object, values: Sequence[str]) -> None:
        metric = trial["spec"]["objective"]["objectiveMetricName"]
        logs = [MetricLog(timestamp(self.now), metric, value) for value in values]
        self.db_manager.report_observation_log(trial["metadata"]["name"], logs)

    def end_job(self, trial: Object, type_: str, reason: str = "") -> None:
        job = self.job(trial)
        if job is not None and "deletionTimestamp" not in job["metadata"]:
            condition = {"type": type_, "status": "True", "reason": reason, "message": ""}
            self.registry.update_status(kind_of(job), {**job, "status": {"conditions": [condition]}})

    def delete_job(self, trial: Object) -> None:
        job = self.job(trial)
        if job is not None:
            self.registry.delete(kind_of(job), job["metadata"]["namespace"], job["metadata"]["name"])

    def succeed(self, trial: Object, *values: str) -> None:
        self.report(trial, values)
        job = self.job(trial)
        is_operated = job is not None and job["kind"] == PYTORCH_JOB.name
        self.end_job(trial, "Succeeded" if is_operated else "Complete")

    def stop_early(self, trial: Object, *values: str) -> None:
        self.report(trial, values)
        self.early_stopping.set_trial_status(trial["metadata"]["namespace"], trial["metadata"]["name"])

    # How time goes on

    async def settle(self, *, seconds: float = 1.0) -> None:
        """Until nothing is left to do; then the time passes, and what was due in it is done as well."""
        await self._work()
        until = self.now + timedelta(seconds=seconds)
        while self._timers and self._timers[0][0] <= until:
            due, item = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            self._dirty[item] = None
            await self._work()
        self.now = until

    async def _work(self) -> None:
        for _ in range(LONGEST_QUIET):
            self._read()
            self._collect_garbage()
            self._read()
            if not self._dirty:
                return
            items = list(self._dirty)
            item = items[self._random.randrange(len(items))]
            del self._dirty[item]
            await self._reconcile(item)
        raise AssertionError("the controllers do not come to rest")

    async def _reconcile(self, item: Item) -> None:
        number, key = item
        try:
            delay = await self._controllers[number].reconcile(*key)
            self._failures.pop(item, None)
        except Exception as error:  # noqa: BLE001  as in the controllers' own machinery
            self.errors.append(str(error))
            failures = self._failures[item] = self._failures.get(item, 0) + 1
            delay = min(0.01 * 2**failures, 60)
        if delay is not None:
            heapq.heappush(self._timers, (self.now + timedelta(seconds=delay), item))

    def _read(self) -> None:
        for kind, subscription in self._watched.items():
            for change in subscription.read():
                obj = dict(change.entry.view)
                if kind == EXPERIMENT and not change.deleted:
                    self.observe(obj)
                for number, controller in enumerate(self._controllers):
                    if kind == controller.kind or kind in controller.owns:
                        self._dirty |= {(number, key): None for key in controller.keys_for(kind, obj)}

    def _collect_garbage(self) -> None:
        """Jobs whose Trial is gone, and those that are deleted: there are no pods to wait for."""
        trials = {trial.view["metadata"]["uid"] for trial in self.registry.entries(TRIAL)}
        for kind in TrialController.owns:
            for entry in list(self.registry.entries(kind)):
                if "deletionTimestamp" in entry.view["metadata"]:
                    job = entry.copy()
                    job["metadata"]["finalizers"] = []
                    self.registry.update(kind, job)
                elif (controller_of(dict(entry.view)) or {}).get("uid") not in trials:
                    self.registry.delete(kind, *entry.key)


def kind_of(job: Object) -> Kind:
    return next(kind for kind in TrialController.owns if kind.name == job["kind"])
