"""One run of the matrix' DAG: what is seen of it while it goes on, and what it has left behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import psutil

from airflow_llmtune.resources.meta import identity
from demo.cluster import phase as last_condition
from program import processes
from tests.chaos.cases import Phase
from tests.chaos.gates import Gates
from tests.chaos.seen import Seen
from tests.chaos.site import ChaosSite

DAG_ID, TASK_ID = "chaos", "tune"
NAMESPACED = "namespaces/default"
PODS = f"/api/v1/{NAMESPACED}/pods"
# What an Experiment makes; the names of all begin with its own.
MADE = (
    *(f"/apis/kubeflow.org/v1beta1/{NAMESPACED}/{plural}" for plural in ("experiments", "trials")),
    f"/apis/batch/v1/{NAMESPACED}/jobs",
    PODS,
)
TERMINAL = {"Succeeded", "Failed", "Complete", "Killed", "EarlyStopped", "MetricsUnavailable"}

JSON = dict[str, Any]


@dataclass
class Run:
    """
    A run that pauses in one phase of its task's life.

    :param run_id: Airflow's.
    """

    site: ChaosSite
    phase: Phase
    gates: Gates
    run_id: str

    @classmethod
    def start(cls, site: ChaosSite, phase: Phase, name: str) -> Run:
        folder = site.home / name
        folder.mkdir()
        run_id = site.airflow.trigger(DAG_ID, {"folder": str(folder), "phase": phase})
        return cls(site, phase, Gates(folder, phase), run_id)

    def is_there(self) -> bool:
        """Tell whether it has come to where it pauses."""
        match self.phase:
            case "before create":
                return self.gates.task_waits
            case "between create and defer":
                return self.gates.task_waits and self.gates.trial_waits
            case "deferred":
                return self.gates.trial_waits and self._is_deferred()
            case "while completing":
                if self.gates.trial_waits and self._is_deferred():
                    self.gates.open_trials()
                return self.gates.task_waits

    def _is_deferred(self) -> bool:
        """
        Tell whether a triggerer waits for its task, and the scheduler knows that the worker has left it.

        A trigger that fires before that makes Airflow take the task for lost.
        """
        heard = f"state success for task instance TaskInstanceKey(dag_id='{DAG_ID}', task_id='{TASK_ID}', "
        log = self.site.processes.log_path("airflow-scheduler").read_text(errors="replace")
        return f"{heard}run_id='{self.run_id}'" in log and self.triggerers() != []

    def instance(self) -> JSON:
        found = self.site.airflow.task_instances(DAG_ID, self.run_id)
        return next(one for one in found if one["task_id"] == TASK_ID)

    def triggerers(self) -> list[str]:
        """Return the services that wait for its task: those that have the log of it open."""
        return [name for name in self.site.triggerers if self._is_logged_by(name)]

    def _is_logged_by(self, service: str) -> bool:
        opened = [file.path for process in self.site.family(service) for file in process.open_files()]
        return any(f"run_id={self.run_id}/" in path for path in opened)

    def ended(self) -> datetime | None:
        """Return when it ended, once it has."""
        run = self.site.airflow.client.get(f"/dags/{DAG_ID}/dagRuns/{self.run_id}").raise_for_status().json()
        return datetime.fromisoformat(run["end_date"]) if run["state"] in {"success", "failed"} else None

    def processes(self) -> list[psutil.Process]:
        """Return those of its trials; all have its folder in their command line."""
        return [one for one in processes(str(self.gates.folder)) if _runs(one)]

    def results(self) -> int:
        """Return how many times the task downstream was given what the task's XCom holds."""
        try:
            result = self.site.airflow.xcom(DAG_ID, self.run_id, TASK_ID)
        except httpx.HTTPStatusError:
            return 0
        return self.gates.delivered.count(result["experiment"])

    def pods(self) -> list[str]:
        """Return the paths of its pods that have not ended."""
        return [f"{PODS}/{one['metadata']['name']}" for one in self._made(PODS) if not has_ended(one)]

    def seen(self) -> Seen:
        experiments = [one for one in self.site.objects(MADE[0]) if one["metadata"]["uid"] in self._uids()]
        orphans = [one["metadata"]["name"] for path in MADE for one in self._made(path) if not has_ended(one)]
        return Seen(
            state=str(self.instance()["state"]),
            created=len(self._uids()),
            left=tuple(sorted(map(last_condition, experiments))),
            results=self.results(),
            orphans=tuple(orphans),
            processes=len(self.processes()),
        )

    def is_quiet(self) -> bool:
        """Tell whether nothing of it goes on any more."""
        seen = self.seen()
        return not seen.orphans and not seen.processes

    def _created(self) -> list[JSON]:
        return self.site.census.created(identity(DAG_ID, TASK_ID, self.run_id, -1))

    def _uids(self) -> set[str]:
        return {one["metadata"]["uid"] for one in self._created()}

    def _made(self, path: str) -> list[JSON]:
        names = {one["metadata"]["name"] for one in self._created()}
        return [one for one in self.site.objects(path) if any(_is_of(one, name) for name in names)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_of(obj: JSON, experiment: str) -> bool:
    return bool(f"{obj['metadata']['name']}-".startswith(f"{experiment}-"))


def has_ended(obj: JSON) -> bool:
    status = obj.get("status") or {}
    if "phase" in status:  # a pod
        return status["phase"] in TERMINAL
    return any(one["type"] in TERMINAL and one["status"] == "True" for one in status.get("conditions") or [])
