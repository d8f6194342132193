"""The JobSet controller (``jobset.x-k8s.io/v1alpha2``); what it does is decided in ``job_set_plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, JOB_SET, SERVICE
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import job_set_plan
from airflow_llmtune.controlplane.controllers.children import children
from airflow_llmtune.controlplane.controllers.job_set_jobs import NAME
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import Controller, is_controlled_by

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

CONTROLLER_NAME = "jobset.sigs.k8s.io/jobset-controller"


class RefusedJobError(Exception):
    """A Job of the set cannot be made; tried again later."""


class JobSetController(Controller):
    kind = JOB_SET
    owns = (JOB, SERVICE)

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job_set = self.registry.find(JOB_SET, namespace, name)
        if job_set is None or "deletionTimestamp" in job_set["metadata"]:
            return None
        if job_set["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
            return None
        jobs = children(self.registry, JOB, namespace, name, NAME)
        owned = [job for job in jobs if is_controlled_by(job, job_set)]
        plan = job_set_plan.plan(job_set, owned, self._clock())
        try:
            self._carry_out(job_set, plan)
        except RefusedJobError as error:
            self.registry.record_event(job_set, "Warning", "JobCreationFailed", str(error))
            return self._retries.after_failure(job_set["metadata"]["uid"])
        self._retries.after_success(job_set["metadata"]["uid"])
        return plan.look_again_seconds

    def _carry_out(self, job_set: dict[str, Any], plan: job_set_plan.JobSetPlan) -> None:
        namespace, name = job_set["metadata"]["namespace"], job_set["metadata"]["name"]
        for job_name in plan.delete:
            self.registry.delete(JOB, namespace, job_name, propagation="Foreground")
        if (
            plan.service is not None
            and self.registry.find(SERVICE, namespace, plan.service["metadata"]["name"]) is None
        ):
            self.registry.create(SERVICE, plan.service)
        for job in plan.create:
            self._create(job)
        for job in plan.update:
            self.registry.update(JOB, job)
        if plan.status != job_set.get("status", {}):
            job_set = self.registry.update_status(JOB_SET, {**job_set, "status": plan.status})
        for event in plan.events:
            self.registry.record_event(job_set, *event)
        if plan.delete_job_set:
            self.registry.delete(JOB_SET, namespace, name, propagation="Foreground")

    def _create(self, job: dict[str, Any]) -> None:
        try:
            self.registry.create(JOB, job)
        except ApiError as error:
            text = f'job "{job["metadata"]["name"]}" creation failed with error: {error}'
            raise RefusedJobError(text) from error
