"""The apps/v1 ReplicaSet controller; what it does is decided in ``replica_set_plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import POD, REPLICA_SET
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import replica_set_plan
from airflow_llmtune.controlplane.controllers.pod_template import pod_from_template
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.selecting import SelectingController

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]


class ReplicaSetController(SelectingController):
    kind = REPLICA_SET
    owns = (POD,)

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        replica_set = self.registry.find(REPLICA_SET, namespace, name)
        if replica_set is None:
            return None
        pods, now = self.claim(POD, replica_set), self._clock()
        plan = replica_set_plan.plan(replica_set, pods, now)
        created, failure = self._create_pods(replica_set, plan.create)
        for pod_name in plan.delete:
            self.registry.delete(POD, namespace, pod_name)
            self.registry.record_event(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod_name}")
        left = [pod for pod in pods if pod["metadata"]["name"] not in plan.delete]
        status = replica_set_plan.status(replica_set, [*left, *created], now, failure)
        if status != replica_set.get("status"):
            self.registry.update_status(REPLICA_SET, {**replica_set, "status": status})
        uid = replica_set["metadata"]["uid"]
        if failure is not None:
            return self._retries.after_failure(uid)
        self._retries.after_success(uid)
        return plan.look_again_seconds

    def _create_pods(self, replica_set: Object, count: int) -> tuple[list[Object], str | None]:
        """Stops at the first that is refused, and says why."""
        made: list[Object] = []
        for _ in range(count):
            pod = pod_from_template(REPLICA_SET, replica_set, replica_set["spec"]["template"], {})
            pod["metadata"]["generateName"] = f"{replica_set['metadata']['name']}-"
            try:
                created = self.registry.create(POD, pod)
            except ApiError as error:
                self.registry.record_event(replica_set, "Warning", "FailedCreate", f"Error creating: {error}")
                return made, str(error)
            made.append(created)
            message = f"Created pod: {created['metadata']['name']}"
            self.registry.record_event(replica_set, "Normal", "SuccessfulCreate", message)
        return made, None
