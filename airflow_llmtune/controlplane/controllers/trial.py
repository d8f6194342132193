"""The Trial controller: makes the job, reads its end, fetches the metrics."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, PYTORCH_JOB, TRIAL, Kind, kind_for
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import trial_status
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.observation import fold, is_available, wanted_metrics
from airflow_llmtune.controlplane.controllers.runtime import Controller, is_left_behind, owner_reference
from airflow_llmtune.controlplane.db_manager import UNAVAILABLE, YEAR_ONE, DBManager, MetricLog

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.controllers.trial_status import JobStatus

FINALIZER = "clean-metrics-in-db"
TRIAL_LABEL = "katib.kubeflow.org/trial"

_LOOK_AGAIN_SECONDS = 1.0


class TrialController(Controller):
    kind = TRIAL
    owns = (JOB, PYTORCH_JOB)

    def __init__(self, registry: Registry, db_manager: DBManager, clock: Clock) -> None:
        super().__init__(registry)
        self._db_manager = db_manager
        self._clock = clock

    async def reconcile(self, namespace: str, name: str) -> float | None:
        trial = self.registry.find(TRIAL, namespace, name)
        if trial is None or self._keep_finalizer(trial):
            return None
        before = copy.deepcopy(trial.get("status"))
        delay = self._advance(trial)
        if trial.get("status") != before:
            self.registry.update_status(TRIAL, trial)
        return delay

    def _keep_finalizer(self, trial: dict[str, Any]) -> bool:
        """Whether the finalizer had to be put or taken; the write brings us back here."""
        metadata = trial["metadata"]
        finalizers, deleted = metadata.get("finalizers", []), "deletionTimestamp" in metadata
        if deleted != (FINALIZER in finalizers):
            return deleted
        if deleted:
            self._db_manager.delete_observation_log(metadata["name"])
            metadata["finalizers"] = [one for one in finalizers if one != FINALIZER]
        else:
            metadata["finalizers"] = [*finalizers, FINALIZER]
        self.registry.update(TRIAL, trial)
        return True

    def _advance(self, trial: dict[str, Any]) -> float | None:
        now = timestamp(self._clock())
        if not has_condition(trial, "Created"):
            trial_status.mark_created(trial, now)
            return None
        run_spec = trial["spec"]["runSpec"]
        kind = kind_for(run_spec["apiVersion"], run_spec["kind"])
        job = self.registry.find(kind, trial["metadata"]["namespace"], trial["metadata"]["name"])
        if trial_status.is_completed(trial):
            self._clear_job(trial, kind, job)
            return None
        if job is None:
            self._create_job(trial, kind)
            trial_status.mark_running(trial, now)
            return None
        if is_left_behind(job, trial):
            return None  # When it has gone we are called again.
        return self._judge(trial, trial_status.job_status(trial, job), now)

    def _create_job(self, trial: dict[str, Any], kind: Kind) -> None:
        job = copy.deepcopy(trial["spec"]["runSpec"])
        job["metadata"]["ownerReferences"] = [owner_reference(TRIAL, trial)]
        self.registry.create(kind, job)
        self._tell(trial, "JobCreated", f"Job {trial['metadata']['name']} has been created")

    def _clear_job(self, trial: dict[str, Any], kind: Kind, job: dict[str, Any] | None) -> None:
        if job is None or trial["spec"].get("retainRun") or "deletionTimestamp" in job["metadata"]:
            return
        metadata = job["metadata"]
        self.registry.delete(kind, metadata["namespace"], metadata["name"], propagation="Foreground")
        self._tell(trial, "JobDeleted", f"Job {metadata['name']} has been deleted")

    def _judge(self, trial: dict[str, Any], job: JobStatus, now: str) -> float | None:
        name = trial["metadata"]["name"]
        match job.state:
            case "Failed":
                trial_status.mark_failed(trial, job, now)
                self._tell(trial, "JobFailed", f"Job {name} has failed")
            case "Succeeded":
                return self._finish(trial, job, now)
            case "Running" if not has_condition(trial, "Running"):
                trial_status.mark_running(trial, now)
                self._tell(trial, "JobRunning", f"Job {name} is running")
        return None

    def _finish(self, trial: dict[str, Any], job: JobStatus, now: str) -> float | None:
        """End a Trial whose job succeeded, once its metrics are in or can no longer come."""
        name, objective = trial["metadata"]["name"], trial["spec"]["objective"]
        if not self._metric_logs(trial):
            if self._collector_runs(trial):
                return _LOOK_AGAIN_SECONDS
            self._store_unavailable(trial)
        trial["status"]["observation"] = fold(self._metric_logs(trial), objective)
        if is_available(trial["status"]["observation"], objective):
            trial_status.mark_succeeded(trial, job, now)
            self._tell(trial, "JobSucceeded", f"Job {name} has succeeded")
        else:
            trial_status.mark_metrics_unavailable(trial, job, now)
            self._tell(trial, "MetricsUnavailable", f"Metrics are not available for Job {name}", type_="Warning")
        return None

    def _metric_logs(self, trial: dict[str, Any]) -> list[MetricLog]:
        wanted = wanted_metrics(trial["spec"]["objective"])
        logs = self._db_manager.get_observation_log(trial["metadata"]["name"])
        return [entry for entry in logs if entry.name in wanted]

    def _collector_runs(self, trial: dict[str, Any]) -> bool:
        """Whether a pod of the Trial is still up, so that its collector may yet report.

        Differs from Katib: upstream asks every second without end when nothing ever comes; here the metrics
        are unavailable as soon as nobody is left who could report them.
        """
        selector = f"{TRIAL_LABEL}={trial['metadata']['name']}"
        pods, _ = self.registry.list(POD, trial["metadata"]["namespace"], label_selector=selector)
        primary = trial["spec"].get("primaryPodLabels") or {}
        return any(
            pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
            and primary.items() <= pod["metadata"].get("labels", {}).items()
            for pod in pods
        )

    def _store_unavailable(self, trial: dict[str, Any]) -> None:
        metric = trial["spec"]["objective"]["objectiveMetricName"]
        entry = MetricLog(YEAR_ONE, metric, UNAVAILABLE)
        self._db_manager.report_observation_log(trial["metadata"]["name"], [entry])

    def _tell(self, trial: dict[str, Any], reason: str, message: str, *, type_: str = "Normal") -> None:
        self.registry.record_event(trial, type_, reason, message)
