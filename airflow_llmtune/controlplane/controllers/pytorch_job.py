"""The PyTorchJob controller; what it does is decided in ``pytorch_job_plan``.

All pods share one loopback interface, so two things differ from the training operator. The rendezvous port is not
always 23456 but a free one, chosen once per job and kept in its Services, unless a container names a port
``pytorchjob-port``. And workers get no ``init-pytorch`` container: there is no DNS record to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import POD, PYTORCH_JOB, SERVICE
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import pytorch_job_plan
from airflow_llmtune.controlplane.controllers.adopting import AdoptingController
from airflow_llmtune.controlplane.controllers.children import children
from airflow_llmtune.controlplane.controllers.loopback_port import free_port
from airflow_llmtune.controlplane.controllers.pod_template import pod_from_template
from airflow_llmtune.controlplane.controllers.pytorch_env import (
    JOB_NAME,
    PORT_NAME,
    Replica,
    declared_port,
    environment,
    replica_labels,
    replica_name,
    replicas,
    with_defaults,
)
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import owner_reference

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

CONTROLLER_NAME = "kubeflow.org/training-operator"


class PyTorchJobController(AdoptingController):
    kind = PYTORCH_JOB
    owns = (POD, SERVICE)
    name_label = JOB_NAME

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job = self.registry.find(PYTORCH_JOB, namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return None
        if (job["spec"].get("runPolicy") or {}).get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
            return None
        pods = self.claim(POD, job, children(self.registry, POD, namespace, name, JOB_NAME))
        plan = pytorch_job_plan.plan(job, pods, self._clock())
        self._carry_out(job, plan)
        return plan.look_again_seconds

    def _carry_out(self, job: dict[str, Any], plan: pytorch_job_plan.PyTorchJobPlan) -> None:
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        if plan.status != job.get("status", {}):
            job = self.registry.update_status(PYTORCH_JOB, {**job, "status": plan.status})
        for pod_name in plan.delete:
            self.registry.delete(POD, namespace, pod_name)
            self.registry.record_event(job, "Normal", "SuccessfulDeletePod", f"Deleted pod: {pod_name}")
        for service_name in plan.delete_services:
            self._delete_service(job, service_name)
        self._create(job, plan)
        for event in plan.events:
            self.registry.record_event(job, *event)
        if plan.delete_job:
            self.registry.delete(PYTORCH_JOB, namespace, name)

    def _create(self, job: dict[str, Any], plan: pytorch_job_plan.PyTorchJobPlan) -> None:
        """Stops at the first pod that is refused, for instance by Katib's webhook."""
        if not plan.replicas:
            return
        uid, port = job["metadata"]["uid"], self._port(job)
        try:
            for replica in plan.replicas:
                self._create_service(job, replica, port)
            for replica in plan.create:
                self._create_pod(job, replica, port)
        except ApiError as error:
            self.registry.record_event(job, "Warning", "FailedCreatePod", f"Error creating: {error}")
            delay = self._retries.after_failure(uid)
            plan.look_again_seconds = min(delay, plan.look_again_seconds or delay)
        else:
            self._retries.after_success(uid)

    def _port(self, job: dict[str, Any]) -> int:
        """The job's rendezvous port; any of its Services remembers it."""
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        declared = declared_port(job)
        if declared is not None:
            return declared
        for replica in replicas(job):
            service = self.registry.find(SERVICE, namespace, replica_name(name, replica.type, replica.index))
            if service is not None:
                return int(service["spec"]["ports"][0]["port"])
        return free_port()

    def _create_service(self, job: dict[str, Any], replica: Replica, port: int) -> None:
        metadata = job["metadata"]
        name = replica_name(metadata["name"], replica.type, replica.index)
        found = self.registry.find(SERVICE, metadata["namespace"], name)
        if found is not None:
            self.claim(SERVICE, job, [found])
            return
        labels = replica_labels(job, replica)
        service = {
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": labels,
                "ownerReferences": [owner_reference(PYTORCH_JOB, job)],
            },
            "spec": {
                "clusterIP": "None",
                "selector": labels,
                "ports": [{"name": PORT_NAME, "port": port, "targetPort": port, "protocol": "TCP"}],
            },
        }
        self.registry.create(SERVICE, service)
        self.registry.record_event(job, "Normal", "SuccessfulCreateService", f"Created service: {name}")

    def _delete_service(self, job: dict[str, Any], name: str) -> None:
        namespace = job["metadata"]["namespace"]
        if self.registry.find(SERVICE, namespace, name) is not None:
            self.registry.delete(SERVICE, namespace, name)
            self.registry.record_event(job, "Normal", "SuccessfulDeleteService", f"Deleted service: {name}")

    def _create_pod(self, job: dict[str, Any], replica: Replica, port: int) -> None:
        job = with_defaults(job)
        spec = job["spec"]["pytorchReplicaSpecs"][replica.type]
        pod = pod_from_template(PYTORCH_JOB, job, spec["template"], replica_labels(job, replica))
        pod["metadata"]["name"] = replica_name(job["metadata"]["name"], replica.type, replica.index)
        if "restartPolicy" in pod["spec"]:
            text = "Restart policy in pod template will be overwritten by restart policy in replica spec"
            self.registry.record_event(job, "Warning", "SettedPodTemplateRestartPolicy", text)
        # Under ExitCode the operator itself decides about a new pod, so the kubelet must not restart.
        policy = spec["restartPolicy"]
        pod["spec"]["restartPolicy"] = "Never" if policy == "ExitCode" else policy
        added = environment(job, replica, port)
        for container in pod["spec"]["containers"]:
            container["env"] = [*(container.get("env") or ()), *added]
        created = self.registry.create(POD, pod)
        message = f"Created pod: {created['metadata']['name']}"
        self.registry.record_event(job, "Normal", "SuccessfulCreatePod", message)
