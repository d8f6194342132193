"""The one wait loop of the package. A kind adds how its outcome is read and how its progress is told."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources.meta import OWNER_ANNOTATION, Outcome, ResourceKind, path
from airflow_llmtune.triggers.connection import ClusterConnection

if TYPE_CHECKING:
    from airflow_llmtune.hooks.kubeflow import KubeflowClient

__all__ = [
    "API_ERROR",
    "ENDED_STATES",
    "OBJECT_DELETED",
    "WAIT_TIMEOUT",
    "OnKillAction",
    "WaitTrigger",
    "follow",
    "follow_all",
]

JSON = dict[str, Any]
OnKillAction = Literal["delete", "keep"]

# Reasons of an Outcome that the wait itself ended, beside those that Kubernetes gives.
OBJECT_DELETED = "ObjectDeleted"
WAIT_TIMEOUT = "WaitTimeout"
API_ERROR = "ApiError"

# A watch is asked to end after this many seconds, spread so that many waiters do not come back at once.
WATCH_SECONDS = (240, 300)
# A watch that ended sooner counts as a failure to back off from.
SHORT_WATCH_SECONDS = 5.0
# Task states in which nobody will come back for the object; in any other a newer try owns the decision.
ENDED_STATES = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
# The event loop itself holds its tasks only weakly.
_DELETIONS: set[asyncio.Task[None]] = set()


async def follow(
    client: KubeflowClient, kind: ResourceKind, namespace: str, name: str, *, poll_interval: float
) -> AsyncGenerator[JSON | None, None]:
    """Yield the object as it is now and after each change, for ever; None while there is no such object."""
    selection = {"field_selector": f"metadata.name={name}"}
    async with aclosing(follow_all(client, kind, namespace, poll_interval=poll_interval, **selection)) as states:
        async for objects in states:
            yield objects[0] if objects else None


async def follow_all(
    client: KubeflowClient,
    kind: ResourceKind,
    namespace: str,
    *,
    poll_interval: float,
    field_selector: str = "",
    label_selector: str = "",
) -> AsyncGenerator[list[JSON]]:
    """
    Yield all objects that the selectors find, as they are now and after each change, for ever.

    List, then watch from the list's resourceVersion; whatever ends the watch (410, lost connection, the server's own
    time limit) costs one list. Without permission to watch, it lists each ``poll_interval`` seconds.
    """
    selectors = {"field_selector": field_selector, "label_selector": label_selector}
    may_watch = True
    failures = 0
    while True:
        objects, version = await client.list_all(kind, namespace, **selectors)
        known = {obj["metadata"]["name"]: obj for obj in objects}
        yield list(known.values())
        if not may_watch:
            await asyncio.sleep(poll_interval)
            continue
        begin = time.monotonic()
        watch = client.watch(
            kind,
            namespace,
            resource_version=version,
            **selectors,
            timeout_seconds=random.randint(*WATCH_SECONDS),  # noqa: S311 (spreads load, guards nothing)
        )
        try:
            async with aclosing(watch):
                async for type_, changed in watch:
                    if type_ == "BOOKMARK":
                        continue
                    known.pop(changed["metadata"]["name"], None)
                    if type_ != "DELETED":
                        known[changed["metadata"]["name"]] = changed
                    yield list(known.values())
        except KubernetesApiError as error:
            if error.code == 403:
                may_watch = False
            elif error.code != 410 and not error.transient:
                raise
        # A proxy may end each watch at once; then this must not become a loop of lists.
        failures = min(failures + 1, 8) if time.monotonic() - begin < SHORT_WATCH_SECONDS else 0
        await asyncio.sleep(min(poll_interval, 0.1 * 2**failures) * random.uniform(0.5, 1.0))  # noqa: S311


class WaitTrigger(ClusterConnection, BaseTrigger):
    """
    Waits until one object has finished, then fires one event: its name, uid and outcome.

    Its arguments are stored in Airflow's database as plain text: they name the connection and hold nothing secret.

    :param name: name of the object.
    :param namespace: its namespace.
    :param uid: its incarnation; another object of the same name counts as "deleted".
    :param kubernetes_conn_id: Airflow connection, resolved here in the triggerer.
    :param config_file: kubeconfig, readable by the triggerer.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the triggerer's own service account.
    :param poll_interval: seconds between reads where this service account may list but not watch.
    :param api_retry_timeout: seconds without any answer of the API server after which the wait gives up.
    :param deadline: seconds since the epoch at which the wait gives up.
    :param on_kill_action: ``delete`` or ``keep`` the object when a user ends the deferred task.
    """

    kind: ClassVar[ResourceKind]
    ended_states: ClassVar[frozenset[str]] = ENDED_STATES

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        uid: str,
        kubernetes_conn_id: str | None = "kubernetes_default",
        config_file: str | None = None,
        cluster_context: str | None = None,
        in_cluster: bool | None = None,
        poll_interval: float = 30.0,
        api_retry_timeout: float = 300.0,
        deadline: float | None = None,
        on_kill_action: str = "delete",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.namespace = namespace
        self.uid = uid
        self.kubernetes_conn_id = kubernetes_conn_id
        self.config_file = config_file
        self.cluster_context = cluster_context
        self.in_cluster = in_cluster
        self.poll_interval = poll_interval
        self.api_retry_timeout = api_retry_timeout
        self.deadline = deadline
        self.on_kill_action = on_kill_action
        self._fired = False

    @staticmethod
    def read_outcome(obj: JSON) -> Outcome:
        """Read the outcome of one object of this kind."""
        raise NotImplementedError

    @staticmethod
    def describe(obj: JSON) -> str:
        """Tell the progress in one line; the wait logs it each time it changes."""
        raise NotImplementedError

    def serialize(self) -> tuple[str, dict[str, Any]]:
        own = [cls for cls in type(self).__mro__ if issubclass(cls, WaitTrigger)]
        parameters = [item for cls in own for item in inspect.signature(cls.__init__).parameters.values()]
        names = sorted({item.name for item in parameters if item.kind is item.KEYWORD_ONLY})
        return f"{type(self).__module__}.{type(self).__qualname__}", {key: getattr(self, key) for key in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        outcome = await self.wait()
        # Airflow calls on_kill also between this yield and the end of the coroutine; by then the task owns the object.
        self._fired = True
        yield TriggerEvent(outcome.to_event(self.name, self.namespace, self.uid))  # type: ignore[no-untyped-call]

    async def wait(self) -> Outcome:
        """Return the outcome once there is one; also what a task that does not defer awaits."""
        try:
            async with asyncio.timeout(None if self.deadline is None else self.deadline - time.time()):
                return await self._watch_until_finished()
        except TimeoutError:
            return Outcome("Failed", WAIT_TIMEOUT, f"{self.kind.kind} {self.name} did not finish before its deadline")
        except KubernetesApiError as error:
            return Outcome("Failed", API_ERROR, str(error))

    async def _watch_until_finished(self) -> Outcome:
        told = None
        async with (
            self.hook.connect() as client,
            # Closed before the connections are: else an open watch outlives them.
            aclosing(follow(client, self.kind, self.namespace, self.name, poll_interval=self.poll_interval)) as states,
        ):
            async for obj in states:
                if obj is None or obj["metadata"]["uid"] != self.uid:
                    break
                if (progress := self.describe(obj)) != told:
                    self.log.info("%s %s: %s", self.kind.kind, self.name, progress)
                    told = progress
                outcome = self.read_outcome(obj)
                if outcome.finished:
                    return outcome
        message = (
            f"{self.kind.kind} {self.name} in namespace {self.namespace} was deleted while this task waited for it"
        )
        return Outcome("Failed", OBJECT_DELETED, message)

    async def on_kill(self) -> None:
        """
        Delete the object when a user ended the task; never when Airflow only moved or cleared it.

        Airflow also calls this after the event was fired, when the trigger was handed to another triggerer, and after
        a clear, when the next try may have adopted the object already. The state of the task and the owner written on
        the object tell these apart.
        """
        # Airflow repeats its cancel about once a second until the trigger is gone; the second one would end this.
        deletion = asyncio.create_task(self._undo_if_ended())
        _DELETIONS.add(deletion)
        deletion.add_done_callback(_DELETIONS.discard)
        await asyncio.shield(deletion)

    async def _undo_if_ended(self) -> None:
        if self._fired or self.on_kill_action == "keep" or self.task_instance is None:
            return
        state = await _task_state(self.task_instance)
        if state not in self.ended_states:
            self.log.info("%s %s is kept: the task is %s", self.kind.kind, self.name, state)
            return
        async with self.hook.connect() as client:
            await self.undo(client, str(self.task_instance.id))

    async def undo(self, client: KubeflowClient, owner: str) -> None:
        """Delete the object, as its task was ended; not when it belongs to another try by now."""
        obj = await client.find(self.kind, self.namespace, self.name)
        found = path(obj, "metadata", "annotations", OWNER_ANNOTATION)
        if found != owner:
            self.log.info("%s %s is kept: it belongs to task instance %s", self.kind.kind, self.name, found)
        elif await client.delete(self.kind, self.namespace, self.name, uid=self.uid):
            self.log.info("%s %s deleted: the task was ended by a user", self.kind.kind, self.name)


async def _task_state(ti: Any) -> str:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from asgiref.sync import sync_to_async

    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
    state = (states.get(ti.run_id) or {}).get(key, "removed")
    # A task that was cleared has no state until it is scheduled again.
    return "cleared" if state is None else str(state)
