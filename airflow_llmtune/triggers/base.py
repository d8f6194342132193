"""The one wait of the package. A kind adds how its outcome and its progress are read, and how it is told."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError
from airflow_llmtune.hooks.diagnosis import explain
from airflow_llmtune.resources.meta import WAITED_FOR, Outcome, ResourceKind, is_waited_for
from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.scrutiny import CANNOT_START, STALLED, Scrutiny, warnings_in
from airflow_llmtune.triggers.shared_watch import Companion, View, join, leave
from airflow_llmtune.triggers.task_state import ENDED_STATES, task_state

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = [
    "API_ERROR",
    "API_ERRORS",
    "CANNOT_START",
    "GIVEN_UP",
    "OBJECT_DELETED",
    "PERMISSION_DENIED",
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
API_ERROR, PERMISSION_DENIED = "ApiError", "PermissionDenied"
# With one of these nobody could look: what the task then raises.
API_ERRORS = {API_ERROR: KubernetesApiError, PERMISSION_DENIED: PermissionDeniedError}
# With one of these the object still runs.
GIVEN_UP = frozenset({WAIT_TIMEOUT, STALLED, CANNOT_START})

# The stream may lag behind what was just created; the API server is asked again after so many seconds.
LAG_SECONDS = 5.0
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
    :param startup_timeout: seconds without any progress, after a pod was complained of, after which the wait gives up
        when a pod cannot start for a reason that does not pass by itself.
    :param on_stall: ``fail``, or ``warn``: log what there is to see, and go on waiting.
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
        startup_timeout: float | None = 600.0,
        on_stall: str = "fail",
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
        self.startup_timeout = startup_timeout
        self.on_stall = on_stall
        self.on_kill_action = on_kill_action
        self._fired = False
        self._progress: Any = None
        self._scrutiny = Scrutiny(self)
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

    def warn_once(self, topic: str, text: str) -> None:
        """Log it, unless something of that topic was logged before."""
        if topic not in self._warned:
            self._warned.add(topic)
            self.log.warning(text)

    def tell(self, progress: Any) -> None:
        """Log how far the object has got; called when that has changed."""
        self.log.info("%s %s: %s", self.kind.kind, self.name, progress)

    @staticmethod
    def pod_selector(name: str) -> str:
        """Select the pods of the object of that name."""
        raise NotImplementedError

    @classmethod
    async def read_reasons(cls, client: KubeflowClient, obj: JSON) -> list[str]:
        """Say, as far as pods and events tell it, why an object failed or does not get on."""
        name, ended = obj["metadata"]["name"], cls.read_outcome(obj).finished
        return await explain(client, obj["metadata"]["namespace"], name, cls.pod_selector(name), ended=ended)

    def companions(self, *, alone: bool) -> Sequence[Companion]:  # noqa: ARG002
        """Return what else to watch; the wait goes on without what is forbidden."""
        return [Companion(warnings_in(self.namespace), self._scrutiny.hear)]

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
        except PermissionDeniedError as error:
            # The worker was allowed to create what the triggerer may not look at.
            return Outcome("Failed", PERMISSION_DENIED, f"Asked by the {'worker' if alone else 'triggerer'}: {error}")
        except KubernetesApiError as error:
            return Outcome("Failed", API_ERROR, str(error))

    async def _wait(self, *, alone: bool) -> Outcome:
        self._progress = None
        if not alone:
            labelled = Selection(self.kind, self.namespace, self.read, label_selector=WAITED_FOR)
            if (outcome := await self._follow(labelled, self.companions(alone=False))) is not None:
                return outcome
        named = Selection(self.kind, self.namespace, self.read, field_selector=f"metadata.name={self.name}")
        outcome = await self._follow(named, self.companions(alone=True))
        return self._deleted() if outcome is None else outcome

    async def _follow(self, selection: Selection, companions: Sequence[Companion]) -> Outcome | None:
        """Return the outcome once there is one; None when the object is there and the selection leaves it out."""
        changed = asyncio.Event()
        self._scrutiny.begin()
        view = join(self, selection, self.name, changed)
        beside = [(join(self, companion.selection, self.name, changed), companion.take) for companion in companions]
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
                for news, take in beside:
                    self._take_beside(news, take)
                outcome = self._take(view, reading) or await self._scrutiny.look(view)
                if outcome is not None:
                    return outcome
                await self._until(changed, pause)
        finally:
            await leave(self, view, *(news for news, _ in beside))

    def _reading(self, view: View) -> Reading | None:
        return next((reading for reading in view.readings if reading.uid == self.uid), None)

    def _take(self, view: View, reading: Reading | None) -> Outcome | None:
        """Tell what is new; return the outcome once there is one."""
        if reading is not None and reading.progress != self._progress:
            self._progress = reading.progress
            self._scrutiny.patience.moved()
            self.tell(reading.progress)
        if reading is not None and reading.outcome.finished:
            return reading.outcome
        if view.is_polled:
            text = f"This service account may not watch {self.kind.plural}: they are listed now and then"
            self.warn_once("polled", text)
        if not view.is_current:
            self._scrutiny.patience.hold()
        return None

    def _take_beside(self, news: View, take: Callable[[View], None]) -> None:
        kind = news.watch.selection.kind.plural
        if news.is_forbidden:
            self.warn_once(f"forbidden {kind}", f"This service account may not list {kind}: nothing is told of them")
        try:
            take(news)
        except Exception as error:  # noqa: BLE001 (the wait does not need them)
            self.warn_once(f"failed {kind}", f"Nothing more is told of {kind}: {error}")

    async def _until(self, changed: asyncio.Event, pause: float | None) -> None:
        if (left := self._scrutiny.patience.seconds_left) is not None:
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
        from asgiref.sync import sync_to_async

        state = await sync_to_async(task_state)(self.task_instance)
        if state not in self.ended_states:
            self.log.info("%s %s is kept: the task is %s", self.kind.kind, self.name, state)
            return
        async with self.hook.connect() as client:
            await self.undo(client, str(self.task_instance.id))

    async def undo(self, client: KubeflowClient, owner: str) -> None:
        """Delete the object, as its task was ended; not when it belongs to another try by now."""
        # Imported here: at DAG-parse time nobody deletes.
        from airflow_llmtune.hooks.ownership import delete_owned, owner_of

        obj = await client.find(self.kind, self.namespace, self.name)
        if obj is None or obj["metadata"]["uid"] != self.uid:
            return
        if owner_of(obj) != owner:
            self.log.info("%s %s is kept: it belongs to task instance %s", self.kind.kind, self.name, owner_of(obj))
            return
        try:
            await self.tell_last(client, obj)
        except KubernetesApiError as error:
            self.log.warning("How far %s got could not be read: %s", self.name, error)
        if await delete_owned(client, self.kind, obj, owner):
            self.log.info("%s %s deleted: the task was ended by a user", self.kind.kind, self.name)

    async def tell_last(self, client: KubeflowClient, obj: JSON) -> None:
        """Log, and push as XCom, how far an object got that is about to be deleted; nothing, for most kinds."""
