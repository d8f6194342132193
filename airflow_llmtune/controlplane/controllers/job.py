"""The batch/v1 Job controller; what it does is decided in ``job_plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import job_plan
from airflow_llmtune.controlplane.controllers.adopting import AdoptingController
from airflow_llmtune.controlplane.controllers.children import children
from airflow_llmtune.controlplane.controllers.job_count import TRACKING_FINALIZER
from airflow_llmtune.controlplane.controllers.job_indexes import (
    ENVIRONMENT,
    FAILURES,
    IGNORED_FAILURES,
    INDEX,
)
from airflow_llmtune.controlplane.controllers.pod_template import add_environment, pod_from_template
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import is_controlled_by

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

NAME_LABEL = "batch.kubernetes.io/job-name"
UID_LABEL = "batch.kubernetes.io/controller-uid"
CONTROLLER_NAME = "kubernetes.io/job-controller"


class JobController(AdoptingController):
    """``backoff_base_seconds`` is the wait after the first failed pod: 10 s in Kubernetes."""

    kind = JOB
    owns = (POD,)
    name_label = NAME_LABEL

    def __init__(self, registry: Registry, clock: Clock, *, backoff_base_seconds: float = 10.0) -> None:
        super().__init__(registry)
        self._clock = clock
        self._backoff_base_seconds = backoff_base_seconds
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job = self.registry.find(JOB, namespace, name)
        if job is not None and job["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
            return None
        pods = self._pods(namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            self._release(pods)
            return None
        uid = job["metadata"]["uid"]
        owned = self.claim(POD, job, [pod for pod in pods if pod["metadata"]["labels"].get(UID_LABEL) == uid])
        # Those of an earlier job of this name: nobody else lets them go.
        self._release([pod for pod in pods if not is_controlled_by(pod, job)])
        plan = job_plan.plan(job, owned, self._clock(), self._backoff_base_seconds)
        self._carry_out(job, plan)
        return plan.look_again_seconds

    def _pods(self, namespace: str, job_name: str) -> list[dict[str, Any]]:
        pods = children(self.registry, POD, namespace, job_name, NAME_LABEL)
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _carry_out(self, job: dict[str, Any], plan: job_plan.JobPlan) -> None:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        self._create_pods(job, plan)
        if plan.status != job.get("status", {}):
            # First the counters, then the finalizers: a pod must not go before it is counted.
            job = self.registry.update_status(JOB, {**job, "status": plan.status})
        self._release([*plan.release, *plan.drop])
        for pod_name in [*plan.delete, *(pod["metadata"]["name"] for pod in plan.drop)]:
            self.registry.delete(POD, namespace, pod_name)
            self.registry.record_event(job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod_name}")
        for event in plan.events:
            self.registry.record_event(job, *event)
        if plan.delete_job:
            self.registry.delete(JOB, namespace, name, propagation="Foreground")

    def _create_pods(self, job: dict[str, Any], plan: job_plan.JobPlan) -> None:
        """Stops at the first that is refused, for instance by Katib's webhook; the status tells of those made."""
        uid = job["metadata"]["uid"]
        for made, new in enumerate(plan.create):
            try:
                self._create_pod(job, new)
            except ApiError as error:
                self.registry.record_event(job, "Warning", "FailedCreate", f"Error creating: {error}")
                plan.withdraw(len(plan.create) - made)
                plan.look_again(self._retries.after_failure(uid))
                return
        if plan.create:
            self._retries.after_success(uid)

    def _release(self, pods: list[dict[str, Any]]) -> None:
        for pod in pods:
            finalizers = pod["metadata"].get("finalizers", [])
            if TRACKING_FINALIZER in finalizers:
                pod["metadata"]["finalizers"] = [one for one in finalizers if one != TRACKING_FINALIZER]
                self.registry.update(POD, pod)

    def _create_pod(self, job: dict[str, Any], new: job_plan.NewPod) -> None:
        metadata = job["metadata"]
        labels = {
            NAME_LABEL: metadata["name"],
            "job-name": metadata["name"],
            UID_LABEL: metadata["uid"],
            "controller-uid": metadata["uid"],
        }
        pod = pod_from_template(JOB, job, job["spec"]["template"], labels)
        pod["metadata"].update(generateName=f"{metadata['name']}-", finalizers=[TRACKING_FINALIZER])
        if new.index is not None:
            _number(pod, metadata["name"], new)
        created = self.registry.create(POD, pod)
        message = f"Created pod: {created['metadata']['name']}"
        self.registry.record_event(job, "Normal", "SuccessfulCreate", message)


def _number(pod: dict[str, Any], job_name: str, new: job_plan.NewPod) -> None:
    """What tells a pod of an Indexed Job which index it works on."""
    metadata, index = pod["metadata"], str(new.index)
    metadata["generateName"] = f"{job_name}-{index}-"
    metadata["labels"][INDEX] = index
    annotations = metadata.setdefault("annotations", {})
    annotations[INDEX] = index
    if new.failures is not None:
        annotations[FAILURES] = str(new.failures)
        if new.ignored_failures:
            annotations[IGNORED_FAILURES] = str(new.ignored_failures)
    pod["spec"]["hostname"] = f"{job_name}-{index}"
    add_environment(pod["spec"], [{"name": ENVIRONMENT, "valueFrom": _FROM_INDEX}])


_FROM_INDEX = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
