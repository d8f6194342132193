"""The one wait of the package. A kind adds how its outcome and its progress are read, and how it is told."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources.meta import OWNER_ANNOTATION, WAITED_FOR, Outcome, ResourceKind, is_waited_for, path
from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.shared_watch import View, join, leave

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = [
    "API_ERROR",
    "ENDED_STATES",
    "OBJECT_DELETED",
    "STALLED",
    "WAIT_TIMEOUT",
    "OnKillAction",
    "Reading",
    "WaitTrigger",
]

JSON = dict[str, Any]
OnKillAction = Literal["delete", "keep"]

# Reasons of an Outcome that the wait itself ended, beside those that Kubernetes gives.
OBJECT_DELETED = "ObjectDeleted"
WAIT_TIMEOUT = "WaitTimeout"
STALLED = "Stalled"
API_ERROR = "ApiError"

# The stream may lag behind what was just created; the API server is asked again after so many seconds.
LAG_SECONDS = 5.0
# Task states in which nobody will come back for the object; in any other a newer try owns the decision.
ENDED_STATES = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
# The event loop itself holds its tasks only weakly.
_DELETIONS: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What is kept of an object while it is waited for.

    :param uid: its incarnation.
    :param progress: how far it has got; equal as long as nothing happens.
    """

    uid: str
    outcome: Outcome
    progress: Any


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
    :param stall_timeout: seconds without any progress of the object after which the wait gives up. They are counted
        anew when the wait moves to another triggerer.
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
        stall_timeout: float | None = None,
        on_kill_action: str = "delete",
        **newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if newer:
            # Stored by a version of this package that this triggerer does not have yet.
            self.log.warning("%s does without the arguments %s", type(self).__name__, sorted(newer))
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
        self.stall_timeout = stall_timeout
        self.on_kill_action = on_kill_action
        self._fired = False
        self._progress: Any = None
        self._moved = 0.0  # when there was progress last
        self._warned: set[str] = set()

    # What a kind adds.

    @staticmethod
    def read_outcome(obj: JSON) -> Outcome:
        """Read the outcome of one object of this kind."""
        raise NotImplementedError

    @staticmethod
    def read_progress(obj: JSON) -> Any:
        """Read how far the object has got; small, and equal as long as nothing happens."""
        raise NotImplementedError

    def tell(self, progress: Any) -> None:
        """Log how far the object has got; called when that has changed."""
        self.log.info("%s %s: %s", self.kind.kind, self.name, progress)

    def changes_of(self, *, alone: bool) -> Selection | None:  # noqa: ARG002
        """Return what else to watch, for ``tell_change`` alone; the wait goes on without it where it is forbidden."""
        return None

    def tell_change(self, change: Any) -> None:
        """Log what was read of something that has changed."""

    # The wait.

    @classmethod
    def read(cls, obj: JSON) -> Reading:
        return Reading(obj["metadata"]["uid"], cls.read_outcome(obj), cls.read_progress(obj))

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what is stored: only what differs from its default, so that a version without it can read the rest."""
        defaults = self._defaults()
        given = {name: getattr(self, name) for name in sorted(defaults)}
        arguments = {name: value for name, value in given.items() if value != defaults[name]}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    @classmethod
    @cache
    def _defaults(cls) -> dict[str, Any]:
        own = [base for base in reversed(cls.__mro__) if issubclass(base, WaitTrigger)]
        found = [item for base in own for item in inspect.signature(base.__init__).parameters.values()]
        return {item.name: item.default for item in found if item.kind is item.KEYWORD_ONLY}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        outcome = await self.wait()
        # Airflow calls on_kill also between this yield and the end of the coroutine; by then the task owns the object.
        self._fired = True
        yield TriggerEvent(outcome.to_event(self.name, self.namespace, self.uid))  # type: ignore[no-untyped-call]

    async def wait(self, *, alone: bool = False) -> Outcome:
        """
        Return the outcome once there is one.

        :param alone: nobody else waits in this process, so only this one object is listed and watched.
        """
        try:
            async with asyncio.timeout(None if self.deadline is None else self.deadline - time.time()) as limit:
                return await self._wait(alone=alone)
        except TimeoutError:
            if not limit.expired():
                raise
            return Outcome("Failed", WAIT_TIMEOUT, f"{self.kind.kind} {self.name} did not finish before its deadline")
        except KubernetesApiError as error:
            return Outcome("Failed", API_ERROR, str(error))

    async def _wait(self, *, alone: bool) -> Outcome:
        self._progress = None
        if not alone:
            labelled = Selection(self.kind, self.namespace, self.read, label_selector=WAITED_FOR)
            if (outcome := await self._follow(labelled, self.changes_of(alone=False))) is not None:
                return outcome
        named = Selection(self.kind, self.namespace, self.read, field_selector=f"metadata.name={self.name}")
        outcome = await self._follow(named, self.changes_of(alone=True))
        return self._deleted() if outcome is None else outcome

    async def _follow(self, selection: Selection, companion: Selection | None) -> Outcome | None:
        """Return the outcome once there is one; None when the object is there and the selection leaves it out."""
        changed, self._moved = asyncio.Event(), time.monotonic()
        view = join(self, selection, self.name, changed)
        changes = None if companion is None else join(self, companion, self.name, changed)
        try:
            while True:
                changed.clear()
                pause: float | None = None
                reading = self._reading(view)
                # The list has just told of another object of that name, or it is complete.
                if reading is None and (view.readings or view.is_current):
                    obj = await view.find(self.name)
                    if obj is None or obj["metadata"]["uid"] != self.uid:
                        return self._deleted()
                    pause = max(LAG_SECONDS, self.poll_interval) if view.is_polled else LAG_SECONDS
                    reading = self.read(obj)
                    if selection.label_selector and not reading.outcome.finished and not is_waited_for(obj):
                        return None
                outcome = self._take(view, reading, changes)
                if outcome is not None:
                    return outcome
                await self._until(changed, pause)
        finally:
            await leave(self, view, changes)

    def _reading(self, view: View) -> Reading | None:
        return next((reading for reading in view.readings if reading.uid == self.uid), None)

    def _take(self, view: View, reading: Reading | None, changes: View | None) -> Outcome | None:
        """Tell what is new; return the outcome once there is one."""
        if changes is not None:
            self._tell_changes(changes)
        if reading is not None and reading.progress != self._progress:
            self._progress, self._moved = reading.progress, time.monotonic()
            self.tell(reading.progress)
        if reading is not None and reading.outcome.finished:
            return reading.outcome
        if view.is_polled:
            self._warn("polled", f"This service account may not watch {self.kind.plural}: they are listed now and then")
        if not view.is_current:
            self._moved = time.monotonic()  # Who cannot look cannot tell that nothing moves.
        if self.stall_timeout is not None and time.monotonic() - self._moved >= self.stall_timeout:
            return Outcome(
                "Failed", STALLED, f"{self.kind.kind} {self.name} got no further for {self.stall_timeout:g} s"
            )
        return None

    def _tell_changes(self, changes: View) -> None:
        kind = changes.watch.selection.kind.plural
        if changes.is_polled:
            self._warn("forbidden", f"This service account may not list and watch {kind}: nothing is told of them")
        try:
            for change in changes.take_changes():
                self._moved = time.monotonic()
                self.tell_change(change)
        except Exception as error:  # noqa: BLE001 (the wait does not need them)
            self._warn("failed", f"Nothing more is told of {kind}: {error}")

    def _warn(self, topic: str, text: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            self.log.warning(text)

    async def _until(self, changed: asyncio.Event, pause: float | None) -> None:
        if self.stall_timeout is not None:
            left = max(self._moved + self.stall_timeout - time.monotonic(), 0.0)
            pause = left if pause is None else min(left, pause)
        if pause is None:  # The way of ten thousand: without a timer.
            await changed.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await changed.wait()

    def _deleted(self) -> Outcome:
        where = f"{self.kind.kind} {self.name} in namespace {self.namespace}"
        return Outcome("Failed", OBJECT_DELETED, f"{where} was deleted while this task waited for it")

    # The end of a task that nobody waits for any more.

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
