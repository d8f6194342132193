"""The batch/v1 Job controller; what it does is decided in ``job_plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import job_plan
from airflow_llmtune.controlplane.controllers.pod_template import pod_from_template
from airflow_llmtune.controlplane.controllers.runtime import Controller, is_controlled_by

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

NAME_LABEL = "batch.kubernetes.io/job-name"
UID_LABEL = "batch.kubernetes.io/controller-uid"


class JobController(Controller):
    """``backoff_base_seconds`` is the wait after the first failed pod: 10 s in Kubernetes."""

    kind = JOB
    owns = (POD,)

    def __init__(self, registry: Registry, clock: Clock, *, backoff_base_seconds: float = 10.0) -> None:
        super().__init__(registry)
        self._clock = clock
        self._backoff_base_seconds = backoff_base_seconds

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job = self.registry.find(JOB, namespace, name)
        pods = self._pods(namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            self._release(pods)
            return None
        owned = [pod for pod in pods if is_controlled_by(pod, job)]
        plan = job_plan.plan(job, owned, self._clock(), self._backoff_base_seconds)
        self._carry_out(job, plan)
        return plan.look_again_seconds

    def _pods(self, namespace: str, job_name: str) -> list[dict[str, Any]]:
        pods, _ = self.registry.list(POD, namespace, label_selector=f"{NAME_LABEL}={job_name}")
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _carry_out(self, job: dict[str, Any], plan: job_plan.JobPlan) -> None:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        if plan.status != job.get("status", {}):
            # First the counters, then the finalizers: a pod must not go before it is counted.
            job = self.registry.update_status(JOB, {**job, "status": plan.status})
        self._release(plan.release)
        for pod_name in plan.delete:
            self.registry.delete(POD, namespace, pod_name)
        for _ in range(plan.create):
            self._create_pod(job)
        if plan.event is not None:
            self.registry.record_event(job, *plan.event)
        if plan.delete_job:
            self.registry.delete(JOB, namespace, name, propagation="Foreground")

    def _release(self, pods: list[dict[str, Any]]) -> None:
        for pod in pods:
            finalizers = pod["metadata"].get("finalizers", [])
            if job_plan.TRACKING_FINALIZER in finalizers:
                pod["metadata"]["finalizers"] = [one for one in finalizers if one != job_plan.TRACKING_FINALIZER]
                self.registry.update(POD, pod)

    def _create_pod(self, job: dict[str, Any]) -> None:
        metadata = job["metadata"]
        labels = {
            NAME_LABEL: metadata["name"],
            "job-name": metadata["name"],
            UID_LABEL: metadata["uid"],
            "controller-uid": metadata["uid"],
        }
        pod = pod_from_template(JOB, job, job["spec"]["template"], labels)
        pod["metadata"].update(generateName=f"{metadata['name']}-", finalizers=[job_plan.TRACKING_FINALIZER])
        created = self.registry.create(POD, pod)
        message = f"Created pod: {created['metadata']['name']}"
        self.registry.record_event(job, "Normal", "SuccessfulCreate", message)
