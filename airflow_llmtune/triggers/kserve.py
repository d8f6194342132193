"""Waits until a model that was deployed is served, or its new pods show that it will not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_llmtune.resources import deployment, inference_service, llm_inference_service, pod
from airflow_llmtune.resources.meta import Outcome, ResourceKind, path
from airflow_llmtune.resources.rollout import Rollout, read_rollout
from airflow_llmtune.triggers.base import OBJECT_DELETED, WaitTrigger
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.rollback import roll_back
from airflow_llmtune.triggers.shared_watch import View, join, leave
from airflow_llmtune.triggers.task_state import ENDED_STATES

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["InferenceServiceTrigger", "LLMInferenceServiceTrigger"]

JSON = dict[str, Any]
# Time alone may end the wait; looking again costs no request.
TICK_SECONDS = 5.0


class InferenceServiceTrigger(WaitTrigger):
    """
    Fires when an InferenceService serves what was deployed; see :class:`WaitTrigger` for the other arguments.

    Three watches tell it: of the object, of its Deployments and of its pods.

    :param revisions: the versions that its Deployments have to reach.
    :param started: seconds since the epoch at which they were applied.
    :param start_timeout: seconds for which a new pod may wait for a node, or a Deployment get no further.
    :param traffic: percent of the requests that the newest version is to get, where that is waited for.
    :param had_failed: whether the status told of a failure already when they were applied.
    :param on_kill_action: ``rollback`` or ``keep`` the deployment when a user ends the deferred task.
    """

    kind: ClassVar[ResourceKind] = inference_service.KIND
    # Of its Deployments and pods: which label names it, and how all that have one are selected.
    owner_label: ClassVar[str] = inference_service.OWNER_LABEL
    all_pods: ClassVar[str] = inference_service.OWNER_LABEL
    # Who marks a deployment as a success takes what was deployed.
    ended_states = ENDED_STATES - {"success"}

    def __init__(
        self,
        *,
        revisions: Sequence[str],
        started: float,
        start_timeout: float,
        traffic: int | None = None,
        had_failed: bool = False,
        on_kill_action: str = "rollback",
        **waiting: Any,
    ) -> None:
        super().__init__(on_kill_action=on_kill_action, **waiting)
        self.revisions = list(revisions)
        self.started = started
        self.start_timeout = start_timeout
        self.traffic = traffic
        self.had_failed = had_failed

    @staticmethod
    def pod_selector(name: str) -> str:
        """Select the Deployments and pods of the object."""
        return inference_service.pod_selector(name)

    async def look(self, client: KubeflowClient) -> Outcome:
        """Return the outcome as it is now."""
        asked = self._selections(alone=True)
        found = [(await client.list_all(one.kind, one.namespace, **one.selectors))[0] for one in asked]
        return self._judge(*found)

    async def undo(self, client: KubeflowClient, owner: str) -> None:
        told = await roll_back(client, self.kind, self.namespace, self.name, owner)
        self.log.info("The task was ended by a user while it deployed %s %s. %s", self.kind.kind, self.name, told)

    async def _wait(self, *, alone: bool) -> Outcome:
        changed, told = asyncio.Event(), None
        views = [join(self, selection, self.name, changed) for selection in self._selections(alone=alone)]
        try:
            while True:
                changed.clear()
                if all(view.is_listed for view in views):
                    outcome = self._judge(*[view.readings for view in views])
                    # A stream may lag behind what was just applied; so what ends the wait is asked for.
                    outcome = await self._look(views[0]) if outcome.finished else outcome
                    if outcome.finished:
                        return outcome
                    if outcome.message != told:
                        self.log.info("%s %s: %s", self.kind.kind, self.name, outcome.message)
                        told = outcome.message
                await self._until(changed, TICK_SECONDS)
        finally:
            await leave(self, *views)

    async def _look(self, view: View) -> Outcome:
        async with view.client() as client:
            return await self.look(client)

    def _selections(self, *, alone: bool) -> Sequence[Selection]:
        named = f"metadata.name={self.name}" if alone else ""
        below = self.pod_selector(self.name) if alone else self.all_pods
        groups = ByLabel(self.owner_label)
        return (
            Selection(self.kind, self.namespace, lean, field_selector=named),
            Selection(deployment.KIND, self.namespace, lean, groups, label_selector=below),
            Selection(pod.KIND, self.namespace, lean, groups, label_selector=below),
        )

    def _judge(self, objects: Sequence[JSON], deployments: Sequence[JSON], pods: Sequence[JSON]) -> Outcome:
        obj = next(iter(objects), None)
        if obj is None or obj["metadata"]["uid"] != self.uid or obj["metadata"].get("deletionTimestamp"):
            message = f"{self.kind.kind} {self.name} in namespace {self.namespace} was deleted while this task waited"
            return Outcome("Failed", OBJECT_DELETED, message)
        want = Rollout(self.revisions, self.started, self.start_timeout, self.traffic, self.had_failed)
        return read_rollout(obj, deployments, pods, want, time.time())


class LLMInferenceServiceTrigger(InferenceServiceTrigger):
    """Fires when an LLMInferenceService serves what was deployed; see :class:`InferenceServiceTrigger`."""

    kind = llm_inference_service.KIND
    owner_label = llm_inference_service.OWNER_LABEL
    all_pods = llm_inference_service.ALL_PODS

    @staticmethod
    def pod_selector(name: str) -> str:
        """Select the Deployments and pods of the object."""
        return llm_inference_service.pod_selector(name)


@dataclass(frozen=True)
class ByLabel:
    """Groups objects by a label's value."""

    key: str

    def __call__(self, obj: JSON) -> tuple[str]:
        return (str(path(obj, "metadata", "labels", self.key)),)


def lean(obj: JSON) -> JSON:
    """Leave out what nobody reads here, often half of an object."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
