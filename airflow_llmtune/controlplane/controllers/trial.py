"""The Trial controller: makes the job, reads its end, fetches the metrics."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, PYTORCH_JOB, TRAIN_JOB, TRIAL, Kind
from airflow_llmtune.controlplane.clock import Clock, seconds_left, timestamp
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
_PATIENCE_SECONDS = 5.0
"""What the job refers to may still be on its way, and an Experiment without a limit must not make Trial after Trial."""


class UnknownKindError(Exception):
    """The kind of a Trial's job is not served; it may be later, when its CustomResourceDefinition comes."""


class TrialController(Controller):
    kind = TRIAL
    owns = (JOB, PYTORCH_JOB, TRAIN_JOB)
    owns_custom = True
    failure_prefix = "Failed to reconcile: "

    def __init__(self, registry: Registry, db_manager: DBManager, clock: Clock, *, strict: bool = False) -> None:
        super().__init__(registry)
        self._db_manager = db_manager
        self._clock = clock
        self._strict = strict

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
        kind = self._job_kind(trial)
        if has_condition(trial, "EarlyStopped"):
            return self._end_early(trial, kind, now)
        if trial_status.is_completed(trial):
            self._clear_job(trial, kind)
            return None
        if kind is None:
            run_spec = trial["spec"]["runSpec"]
            raise UnknownKindError(f'no matches for kind "{run_spec["kind"]}" in version "{run_spec["apiVersion"]}"')
        return self._follow(trial, kind, now)

    def _follow(self, trial: dict[str, Any], kind: Kind, now: str) -> float | None:
        job = self._job(trial, kind)
        if job is None:
            try:
                job = self._create_job(trial, kind)
            except ApiError as error:
                if self._may_pass(trial, error):
                    raise
                return self._judge(trial, trial_status.JobStatus("Failed", message=error.message), now)
        elif is_left_behind(job, trial):
            return None  # When it has gone we are called again.
        delay = self._judge(trial, trial_status.job_status(trial, job), now)
        is_watched = kind in self.owns or self.registry.kinds.version(kind) is not None
        if delay is None and not is_watched and not trial_status.is_completed(trial):
            return _LOOK_AGAIN_SECONDS
        return delay

    def _job_kind(self, trial: dict[str, Any]) -> Kind | None:
        run_spec = trial["spec"]["runSpec"]
        return self.registry.kinds.find(run_spec["apiVersion"], run_spec["kind"])

    def _job(self, trial: dict[str, Any], kind: Kind) -> dict[str, Any] | None:
        return self.registry.find(kind, trial["metadata"]["namespace"], trial["metadata"]["name"])

    def _create_job(self, trial: dict[str, Any], kind: Kind) -> dict[str, Any]:
        job = copy.deepcopy(trial["spec"]["runSpec"])
        job["metadata"]["ownerReferences"] = [owner_reference(TRIAL, trial)]
        created = self.registry.create(kind, job)
        self._tell(trial, "JobCreated", f"Job {trial['metadata']['name']} has been created")
        return created

    def _may_pass(self, trial: dict[str, Any], error: ApiError) -> bool:
        """Differs from Katib unless strict: there the job is tried again for ever, whatever is wrong with it."""
        if self._strict or not trial_status.is_final_refusal(error.code, error.message):
            return True
        return seconds_left(trial["status"]["startTime"], _PATIENCE_SECONDS, self._clock()) > 0

    def _clear_job(self, trial: dict[str, Any], kind: Kind | None) -> None:
        job = self._job(trial, kind) if kind is not None else None
        # A killed Trial's job would run on, so not even a retained one is kept.
        retained = trial["spec"].get("retainRun") and not has_condition(trial, "Killed")
        if kind is None or job is None or retained or "deletionTimestamp" in job["metadata"]:
            return
        if is_left_behind(job, trial):
            return
        metadata = job["metadata"]
        self.registry.delete(kind, metadata["namespace"], metadata["name"], propagation="Foreground")
        self._tell(trial, "JobDeleted", f"Job {metadata['name']} has been deleted")

    def _end_early(self, trial: dict[str, Any], kind: Kind | None, now: str) -> float | None:
        """Differs from Katib unless strict: the metrics are fetched before the job is deleted, and at once. There
        they are lost without ``retain``, and with it they are fetched when the job has ended.
        """
        if self._strict:
            return self._end_early_as_katib(trial, kind, now)
        if "observation" not in trial["status"]:
            logs = self._metric_logs(trial)
            if not logs and self._collector_runs(trial):
                return _LOOK_AGAIN_SECONDS
            self._observe(trial, logs or self._store_unavailable(trial))
        trial["status"]["completionTime"] = trial["status"].get("completionTime") or now
        self._clear_job(trial, kind)
        return None

    def _end_early_as_katib(self, trial: dict[str, Any], kind: Kind | None, now: str) -> float | None:
        job = self._job(trial, kind) if kind is not None else None
        if job is None or not trial["spec"].get("retainRun"):
            self._clear_job(trial, kind)
            return None
        found = trial_status.job_status(trial, job)
        if found.state in {"Running", "Unreadable"}:
            return None
        logs = self._metric_logs(trial)
        if logs:
            self._observe(trial, logs)
        elif found.state == "Succeeded" and not self._is_pushed(trial):
            return _LOOK_AGAIN_SECONDS
        if found.state == "Succeeded" and not self._is_observed(trial):
            self._mark_unavailable(trial, found, now)
        return None

    def _judge(self, trial: dict[str, Any], job: JobStatus, now: str) -> float | None:
        name = trial["metadata"]["name"]
        match job.state:
            case "Failed":
                trial_status.mark_failed(trial, job, now)
                why = f". {job.message} {job.reason}" if job.message or job.reason else ""
                self._tell(trial, "JobFailed", f"Job {name} has failed{why}")
            case "Succeeded":
                return self._finish(trial, job, now)
            case "Running" if not has_condition(trial, "Running"):
                trial_status.mark_running(trial, now)
                self._tell(trial, "JobRunning", f"Job {name} is running")
        return None

    def _finish(self, trial: dict[str, Any], job: JobStatus, now: str) -> float | None:
        """End a Trial whose job succeeded, once its metrics are in or can no longer come."""
        logs = self._metric_logs(trial)
        if logs:
            self._observe(trial, logs)
        elif self._is_pushed(trial):
            self._store_unavailable(trial)
        elif self._strict or self._collector_runs(trial):
            # Differs from Katib unless strict: upstream asks every second without end when nothing ever comes; here
            # the metrics are unavailable as soon as nobody is left who could report them.
            return _LOOK_AGAIN_SECONDS
        else:
            self._observe(trial, self._store_unavailable(trial))
        if self._is_observed(trial):
            trial_status.mark_succeeded(trial, job, now)
            self._tell(trial, "JobSucceeded", f"Job {trial['metadata']['name']} has succeeded")
        else:
            self._mark_unavailable(trial, job, now)
        return None

    def _mark_unavailable(self, trial: dict[str, Any], job: JobStatus, now: str) -> None:
        if has_condition(trial, "MetricsUnavailable"):
            return
        trial_status.mark_metrics_unavailable(trial, job, now)
        message = f"Metrics are not available for Job {trial['metadata']['name']}"
        self._tell(trial, "MetricsUnavailable", message, type_="Warning")

    def _observe(self, trial: dict[str, Any], logs: Sequence[MetricLog]) -> None:
        trial["status"]["observation"] = fold(logs, trial["spec"]["objective"], strict=self._strict)

    def _is_observed(self, trial: dict[str, Any]) -> bool:
        return is_available(trial["status"].get("observation", {}), trial["spec"]["objective"])

    def _is_pushed(self, trial: dict[str, Any]) -> bool:
        return bool(trial["spec"]["metricsCollector"]["collector"]["kind"] == "Push")

    def _metric_logs(self, trial: dict[str, Any]) -> list[MetricLog]:
        wanted = wanted_metrics(trial["spec"]["objective"])
        logs = self._db_manager.get_observation_log(trial["metadata"]["name"])
        return [entry for entry in logs if entry.name in wanted]

    def _collector_runs(self, trial: dict[str, Any]) -> bool:
        """Whether a pod of the Trial is still up, so that its collector may yet report."""
        selector = f"{TRIAL_LABEL}={trial['metadata']['name']}"
        primary = trial["spec"].get("primaryPodLabels") or {}
        return any(
            pod.view.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
            and primary.items() <= pod.view["metadata"].get("labels", {}).items()
            for pod in self.registry.entries(POD, trial["metadata"]["namespace"], label_selector=selector)
        )

    def _store_unavailable(self, trial: dict[str, Any]) -> list[MetricLog]:
        metric = trial["spec"]["objective"]["objectiveMetricName"]
        logs = [MetricLog(YEAR_ONE, metric, UNAVAILABLE)]
        self._db_manager.report_observation_log(trial["metadata"]["name"], logs)
        return logs

    def _tell(self, trial: dict[str, Any], reason: str, message: str, *, type_: str = "Normal") -> None:
        self.registry.record_event(trial, type_, reason, message)
