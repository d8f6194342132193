"""The apps/v1 Deployment controller; what it does is decided in ``deployment_plan``.

The Deployment of a Suggestion is not its business: that one shows a service that runs in the control plane.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, POD, REPLICA_SET, SUGGESTION, Kind
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import deployment_status as states
from airflow_llmtune.controlplane.controllers.deployment_plan import DeploymentPlan, plan
from airflow_llmtune.controlplane.controllers.deployment_revisions import REVISION, annotations_of
from airflow_llmtune.controlplane.controllers.deployment_sizes import is_rolling
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import Key, controller_of, is_of_kind
from airflow_llmtune.controlplane.controllers.selecting import SelectingController
from airflow_llmtune.controlplane.pods import is_finished

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]


class DeploymentController(SelectingController):
    kind = DEPLOYMENT
    owns = (REPLICA_SET, POD)

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock
        self._retries = RetryDelays()

    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        if kind != POD:
            return super().keys_for(kind, obj)
        # Only Recreate waits for pods; all else is in the status of their ReplicaSets.
        owner = controller_of(obj)
        if owner is None or not is_of_kind(owner, REPLICA_SET):
            return []
        replica_set = self.registry.find(REPLICA_SET, obj["metadata"]["namespace"], owner["name"])
        return [] if replica_set is None else [key for key in super().keys_for(kind, replica_set) if self._waits(key)]

    def _waits(self, key: Key) -> bool:
        deployment = self.registry.find(DEPLOYMENT, *key)
        return deployment is not None and not is_rolling(deployment["spec"])

    async def reconcile(self, namespace: str, name: str) -> float | None:
        deployment = self.registry.find(DEPLOYMENT, namespace, name)
        if deployment is None or _is_of_a_suggestion(deployment):
            return None
        sets = self.claim(REPLICA_SET, deployment)
        running = {} if is_rolling(deployment["spec"]) else self._running(sets)
        return self._carry_out(deployment, plan(deployment, sets, running, self._clock()))

    def _running(self, sets: Sequence[Object]) -> Counter[str]:
        """The pods of each ReplicaSet whose processes may still run."""
        found: Counter[str] = Counter()
        names = {one["metadata"]["uid"]: one["metadata"]["name"] for one in sets}
        for entry in self.registry.entries(POD, sets[0]["metadata"]["namespace"]) if sets else ():
            owner = controller_of(dict(entry.view))
            if owner is not None and owner["uid"] in names and not is_finished(entry.view):
                found[names[owner["uid"]]] += 1
        return found

    def _carry_out(self, deployment: Object, wanted: DeploymentPlan) -> float | None:
        uid = deployment["metadata"]["uid"]
        if wanted.create is not None:
            try:
                self.registry.create(REPLICA_SET, wanted.create)
            except ApiError as error:
                return self._note_failure(deployment, wanted.create, error)
        self._retries.after_success(uid)
        for replica_set in wanted.update:
            self.registry.update(REPLICA_SET, replica_set)
        for name in wanted.delete:
            self.registry.delete(REPLICA_SET, deployment["metadata"]["namespace"], name)
        for event in wanted.events:
            self.registry.record_event(deployment, *event)
        if wanted.revision is not None and annotations_of(deployment).get(REVISION) != wanted.revision:
            deployment["metadata"]["annotations"] = {**annotations_of(deployment), REVISION: wanted.revision}
            deployment = self.registry.update(DEPLOYMENT, deployment)
        if wanted.status != deployment.get("status"):
            self.registry.update_status(DEPLOYMENT, {**deployment, "status": wanted.status})
        return wanted.look_again_seconds

    def _note_failure(self, deployment: Object, replica_set: Object, error: ApiError) -> float | None:
        """A name that something else has is made anew with the next count of collisions."""
        status = deployment.get("status", {})
        if error.reason == "AlreadyExists":
            status = {**status, "collisionCount": status.get("collisionCount", 0) + 1}
            self.registry.update_status(DEPLOYMENT, {**deployment, "status": status})
            return None
        message = f'Failed to create new replica set "{replica_set["metadata"]["name"]}": {error}'
        self.registry.record_event(deployment, "Warning", "ReplicaSetCreateError", message)
        if states.has_deadline(deployment):
            states.put(status, states.PROGRESSING, "False", "ReplicaSetCreateError", message, self._clock())
            self.registry.update_status(DEPLOYMENT, {**deployment, "status": status})
        return self._retries.after_failure(deployment["metadata"]["uid"])


def _is_of_a_suggestion(deployment: Object) -> bool:
    owner = controller_of(deployment)
    return owner is not None and is_of_kind(owner, SUGGESTION)
