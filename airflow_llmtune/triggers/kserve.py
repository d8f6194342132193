"""Waits until a model that was deployed is served, or its new pods show that it will not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_llmtune.resources import deployment, inference_service, llm_inference_service, pod
from airflow_llmtune.resources.meta import Outcome, ResourceKind
from airflow_llmtune.resources.rollout import Rollout, read_rollout
from airflow_llmtune.triggers.base import ENDED_STATES, OBJECT_DELETED, WaitTrigger, follow_all
from airflow_llmtune.triggers.rollback import roll_back

if TYPE_CHECKING:
    from airflow_llmtune.hooks.kubeflow import KubeflowClient

__all__ = ["InferenceServiceTrigger", "LLMInferenceServiceTrigger"]

JSON = dict[str, Any]
# Time alone may end the wait; looking again costs no request.
TICK_SECONDS = 5.0
# A watch that was cut off while it began ends its TLS connection a moment later, and the loop may end with this wait.
CLOSE_SECONDS = 0.25


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
        selector = self.pod_selector(self.name)
        selections = (
            (self.kind, {"field_selector": f"metadata.name={self.name}"}),
            (deployment.KIND, {"label_selector": selector}),
            (pod.KIND, {"label_selector": selector}),
        )
        found = [(await client.list_all(kind, self.namespace, **selection))[0] for kind, selection in selections]
        return self._judge(*found)

    async def undo(self, client: KubeflowClient, owner: str) -> None:
        told = await roll_back(client, self.kind, self.namespace, self.name, owner)
        self.log.info("The task was ended by a user while it deployed %s %s. %s", self.kind.kind, self.name, told)

    async def _watch_until_finished(self) -> Outcome:
        async with self.hook.connect() as client:
            changed, selector = asyncio.Event(), self.pod_selector(self.name)
            views = [
                View(client, self.kind, self, changed, field_selector=f"metadata.name={self.name}"),
                View(client, deployment.KIND, self, changed, label_selector=selector),
                View(client, pod.KIND, self, changed, label_selector=selector),
            ]
            watches = [asyncio.create_task(view.follow()) for view in views]
            try:
                return await self._judge_each_change(views, watches, changed)
            finally:
                for watch in watches:
                    watch.cancel()
                # Closed before the connections are: else an open watch outlives them.
                await asyncio.gather(*watches, return_exceptions=True)
                await asyncio.sleep(CLOSE_SECONDS)

    async def _judge_each_change(
        self, views: Sequence[View], watches: Sequence[asyncio.Task[None]], changed: asyncio.Event
    ) -> Outcome:
        told = None
        while True:
            for watch in watches:
                if watch.done():
                    watch.result()  # It ends by an error alone.
            found = [view.objects for view in views if view.objects is not None]
            if len(found) == len(views):
                outcome = self._judge(*found)
                if outcome.finished:
                    return outcome
                if outcome.message != told:
                    self.log.info("%s %s: %s", self.kind.kind, self.name, outcome.message)
                    told = outcome.message
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), TICK_SECONDS)
            changed.clear()

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

    @staticmethod
    def pod_selector(name: str) -> str:
        """Select the Deployments and pods of the object."""
        return llm_inference_service.pod_selector(name)


class View:
    """The latest objects of one kind, kept up to date by a watch."""

    def __init__(
        self,
        client: KubeflowClient,
        kind: ResourceKind,
        trigger: WaitTrigger,
        changed: asyncio.Event,
        **selectors: str,
    ) -> None:
        self._states = follow_all(client, kind, trigger.namespace, poll_interval=trigger.poll_interval, **selectors)
        self._changed = changed
        self.objects: list[JSON] | None = None

    async def follow(self) -> None:
        try:
            async with aclosing(self._states) as states:
                async for objects in states:
                    self.objects = objects
                    self._changed.set()
        finally:
            self._changed.set()
