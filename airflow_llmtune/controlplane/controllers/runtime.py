"""The machinery below all controllers: watches give keys, each key is reconciled by one task at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, Kind

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Key = tuple[str, str]
"""Namespace and name of the object to reconcile."""

_FIRST_RETRY_SECONDS = 0.01
_LONGEST_RETRY_SECONDS = 60.0
_MOST_DOUBLINGS = 20

log = logging.getLogger(__name__)


class Controller(ABC):
    """Reconciles one kind, level-triggered: called after any change of the object or of what it owns."""

    kind: ClassVar[Kind]
    owns: ClassVar[tuple[Kind, ...]] = ()
    owns_custom: ClassVar[bool] = False
    """Whether what it owns may also be of any kind that a CustomResourceDefinition makes."""
    failure_prefix: ClassVar[str] = ""
    """What its event says before the error."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @abstractmethod
    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring the object one step nearer to its spec; the seconds after which to look again, if any."""

    def keys_for(self, kind: Kind, obj: dict[str, Any]) -> Iterable[Key]:
        """The objects to reconcile because this one changed: itself, or its controller when it is owned."""
        metadata = obj["metadata"]
        namespace = metadata.get("namespace", "")
        if kind == self.kind:
            return [(namespace, metadata["name"])]
        owner = controller_of(obj)
        if owner is None or not is_of_kind(owner, self.kind):
            return []
        return [(namespace, owner["name"])]


def controller_of(obj: dict[str, Any]) -> dict[str, Any] | None:
    """The owner reference that has ``controller: true``."""
    for reference in obj["metadata"].get("ownerReferences", ()):
        if reference.get("controller"):
            found: dict[str, Any] = reference
            return found
    return None


def is_controlled_by(obj: dict[str, Any], owner: dict[str, Any]) -> bool:
    return bool((controller_of(obj) or {}).get("uid") == owner["metadata"]["uid"])


def is_left_behind(obj: dict[str, Any], owner: dict[str, Any]) -> bool:
    """Whether it belongs to an earlier object of the owner's name, so that it is about to be collected."""
    return controller_of(obj) is not None and not is_controlled_by(obj, owner)


def is_of_kind(reference: dict[str, Any], kind: Kind) -> bool:
    return bool(reference["kind"] == kind.name and reference["apiVersion"] == kind.api_version)


def owner_reference(kind: Kind, owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


class _Worker:
    """Runs one controller: one reconcile per key at a time, and one more if the key changed meanwhile."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._dirty: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = defaultdict(int)

    def enqueue(self, key: Key) -> None:
        self._dirty.add(key)
        if key not in self._tasks:
            self._tasks[key] = asyncio.get_running_loop().create_task(self._work(key))

    async def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, key: Key) -> None:
        try:
            while key in self._dirty:
                self._dirty.discard(key)
                self._requeue(key, await self._attempt(key))
        finally:
            del self._tasks[key]

    async def _attempt(self, key: Key) -> float | None:
        try:
            delay = await self._controller.reconcile(*key)
        except Exception as error:  # noqa: BLE001  a controller's fault must not end the plane; it is retried
            return self._after_failure(key, error)
        self._failures.pop(key, None)
        return delay

    def _after_failure(self, key: Key, error: Exception) -> float:
        self._failures[key] += 1
        # A conflict is how optimistic locking says "read again": no fault, so no event and no log line.
        if not (isinstance(error, ApiError) and error.reason == "Conflict"):
            self._report(key, error)
        doublings = min(self._failures[key] - 1, _MOST_DOUBLINGS)
        return float(min(_FIRST_RETRY_SECONDS * 2**doublings, _LONGEST_RETRY_SECONDS))

    def _report(self, key: Key, error: Exception) -> None:
        controller = self._controller
        # What the API refuses is a mistake in the object: its message says all, a traceback would only hide it.
        is_refusal = isinstance(error, ApiError) and error.code < 500
        trace = None if is_refusal else error
        log.warning("reconcile of %s %s/%s failed: %s", controller.kind.name, *key, error, exc_info=trace)
        obj = controller.registry.find(controller.kind, *key)
        if obj is not None:
            with contextlib.suppress(ApiError):
                controller.registry.record_event(
                    obj, "Warning", "ReconcileError", f"{controller.failure_prefix}{error}"
                )

    def _requeue(self, key: Key, delay: float | None) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if delay is not None:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(max(delay, 0.0), self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.enqueue(key)


class Manager:
    """Feeds every controller from one watch per kind, however many controllers look at it."""

    def __init__(self, registry: Registry, controllers: Sequence[Controller]) -> None:
        self._registry = registry
        self._controllers = list(controllers)
        self._workers = {id(controller): _Worker(controller) for controller in self._controllers}

    async def run(self) -> None:
        """Until cancelled."""
        following: set[Kind] = set()
        try:
            async with asyncio.TaskGroup() as group:
                async for _ in self._changes_of_kinds():
                    for kind in self._kinds():
                        if kind not in following:
                            following.add(kind)
                            group.create_task(self._follow(kind))
        finally:
            await asyncio.gather(*(worker.stop() for worker in self._workers.values()))

    async def _changes_of_kinds(self) -> AsyncIterator[None]:
        """Once at the start and after each change of a CustomResourceDefinition."""
        while True:
            watch = self._registry.watch(CUSTOM_RESOURCE_DEFINITION, resource_version=self._registry.resource_version)
            yield
            try:
                async for _ in watch:
                    yield
            except ApiError as error:
                if error.code != 410:
                    raise

    def _kinds(self) -> list[Kind]:
        wanted = {kind: None for each in self._controllers for kind in (each.kind, *each.owns)}
        if any(each.owns_custom for each in self._controllers):
            wanted |= dict.fromkeys(self._registry.kinds.custom())
        return list(wanted)

    async def _follow(self, kind: Kind) -> None:
        followers = self._followers(kind)
        while True:
            try:
                version = self._registry.resource_version
                self._enqueue_all(followers)
                async for event in self._registry.watch(kind, resource_version=version):
                    self._enqueue(followers, kind, event.object)
            except ApiError as error:
                # 410: more changes than the history keeps went by; everything they may concern is looked at.
                if error.code != 410:
                    raise

    def _followers(self, kind: Kind) -> list[Controller]:
        custom = self._registry.kinds.version(kind) is not None
        return [
            each
            for each in self._controllers
            if kind == each.kind or kind in each.owns or (custom and each.owns_custom)
        ]

    def _enqueue_all(self, followers: Sequence[Controller]) -> None:
        """All objects of these controllers: a dependent that is gone cannot tell its owner any more."""
        for controller in followers:
            for entry in self._registry.entries(controller.kind):
                self._workers[id(controller)].enqueue(entry.key)

    def _enqueue(self, followers: Sequence[Controller], kind: Kind, obj: dict[str, Any]) -> None:
        for controller in followers:
            for key in controller.keys_for(kind, obj):
                self._workers[id(controller)].enqueue(key)
