"""The task behind a shared watch: LIST, then WATCH, for as long as anybody waits, whatever the API server answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources.meta import ResourceKind
from airflow_llmtune.triggers.shared_client import SharedClient

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["ListWatch", "Observer", "Selection"]

JSON = dict[str, Any]
log = logging.getLogger(__name__)

# A watch is asked to end after this many seconds, spread so that many triggerers do not come back at once.
WATCH_SECONDS = (240, 300)
# One that ended sooner counts as a failure to back off from: a proxy may end each at once.
SHORT_WATCH_SECONDS = 5.0
# Seconds before the first repeat, doubled with each, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
# One task may not have it done without a pause for all.
SHORTEST_POLL = 1.0
# Where watching is forbidden it may be allowed one day; a triggerer lives for months.
WATCH_AGAIN_SECONDS = 600.0
# So many waits are told of something before they get their turn.
TURN = 50
# So many may ask about their own object at once: a namespace that is gone ends all its waits, each after a question.
ASKING = 20


def _name_of(obj: JSON) -> str:
    name: str = obj["metadata"]["name"]
    return name


def _own_name(obj: JSON) -> tuple[str]:
    return (_name_of(obj),)


@dataclass(frozen=True)
class Selection:
    """
    What is watched, and what is kept of it.

    :param read: makes of an object what a wait needs of it; small, and equal when nothing of interest changed. None is
        passed over.
    :param groups: what a wait finds its objects by: their own name, or the names of what they may belong to.
    :param changes_only: tell what happens from now on, and keep nothing.
    :param optional: where it is forbidden, the waits go on without it, and it is asked for again after some minutes.
    """

    kind: ResourceKind
    namespace: str
    read: Callable[[JSON], Any]
    groups: Callable[[JSON], Sequence[str]] = _own_name
    label_selector: str = ""
    field_selector: str = ""
    changes_only: bool = False
    optional: bool = False

    @property
    def selectors(self) -> dict[str, str]:
        return {"label_selector": self.label_selector, "field_selector": self.field_selector}


class Observer(Protocol):
    """Who takes part."""

    group: str
    poll_interval: float
    api_retry_timeout: float
    joined: float

    def wake(self) -> None:
        """Look at the group's readings again."""

    def tell(self, reading: Any) -> None:
        """Take one change, where only changes are told."""

    def fail(self, error: Exception) -> None:
        """Nothing more comes."""


class ListWatch:
    """
    The one task that lists and watches, and whom it tells.

    :param client: how to ask; no request is repeated there, since that is done here.
    """

    def __init__(self, client: SharedClient, selection: Selection) -> None:
        self.client = client
        self.selection = selection
        self.is_listed = False
        self.may_watch = True
        self.is_forbidden = False
        self.has_ended = False
        """Whether it has given up; who joins then needs another one."""
        self.asking = asyncio.Semaphore(ASKING)
        self._readings: dict[str, dict[str, Any]] = {}  # by group, then by name
        self._observers: dict[str, list[Observer]] = {}
        self._version = ""  # to go on from; "" when all has to be listed
        self._failures = 0
        self._failing_since: float | None = None
        self._forbidden_at = 0.0
        self._turns = 0
        # In an empty context: what it logs is nothing of the task whose wait happened to come first.
        name = f"watch {selection.kind.plural} in {selection.namespace}"
        self._task = asyncio.create_task(self._run(), context=contextvars.Context(), name=name)

    @property
    def is_used(self) -> bool:
        return bool(self._observers)

    @property
    def is_current(self) -> bool:
        return self.is_listed and self._failing_since is None

    def add(self, observer: Observer) -> None:
        self._observers.setdefault(observer.group, []).append(observer)

    def remove(self, observer: Observer) -> None:
        group = self._observers[observer.group]
        group.remove(observer)
        if not group:
            del self._observers[observer.group]

    def readings_of(self, group: str) -> list[Any]:
        return list(self._readings.get(group, {}).values())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                pause = await self._list_and_watch()
                await asyncio.sleep(pause)
        except Exception as error:  # noqa: BLE001 (whatever it is, nobody may wait for ever)
            self.has_ended = True
            await self._fail(self._everybody(), error)

    async def _list_and_watch(self) -> float:
        """List where that is needed, and watch to the end; return the seconds to wait before it is done again."""
        begin, asked_for = time.monotonic(), 0.0
        watching = None
        try:
            async with self.client.open() as client:
                if not self._version:
                    await self._list(client)
                if not self.may_watch and begin - self._forbidden_at < WATCH_AGAIN_SECONDS:
                    self._version = ""
                    return self._poll_interval * random.uniform(0.9, 1.1)  # noqa: S311 (spreads load, guards nothing)
                watching = time.monotonic()
                await self._watch(client)
        except KubernetesApiError as error:
            if error.code == 403 and self.selection.optional:
                self.is_forbidden = True
                await self._forbid(error, "Nothing is told of them")
                return WATCH_AGAIN_SECONDS
            # What was missed meanwhile, or is gone with a server that lost its data, only a list tells.
            self._version, asked_for = "", error.retry_after
            await self._bear(error)
        if watching is None or time.monotonic() - watching < SHORT_WATCH_SECONDS:
            self._version = ""  # It may be that no watch gets as far as to tell anything.
            self._failures += 1
        else:
            self._failures = 0
        pause = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE)
        # No sooner than the server wants.
        return max(pause * random.uniform(0.5, 1.0), asked_for * random.uniform(1.0, 1.5))  # noqa: S311

    # Listing.

    async def _list(self, client: KubeflowClient) -> None:
        selection = self.selection
        # Its first page tells the version from which to watch, and what is in it does not matter.
        first = 1 if selection.changes_only else None
        pages = client.pages(selection.kind, selection.namespace, **selection.selectors, first=first)
        seen: set[tuple[str, str]] = set()
        async with aclosing(pages):
            async for objects, version in pages:
                self._version = version
                if selection.changes_only:
                    self._recover()
                    return
                for obj in objects:
                    seen.update(await self._keep(obj))
        for group, name in self._names() - seen:
            await self._forget(group, name)
        self.is_listed = True
        self._recover()
        # Who finds nothing may conclude something from that now.
        for observer in self._everybody():
            if observer.group not in self._readings:
                observer.wake()
                await self._give_way()

    # Watching.

    async def _watch(self, client: KubeflowClient) -> None:
        """Apply changes until the server ends the watch in an orderly way; then it goes on from the last version."""
        selection = self.selection
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311
        where = {"resource_version": self._version, **selection.selectors}
        events = client.watch(selection.kind, selection.namespace, **where, timeout_seconds=seconds)
        try:
            async with aclosing(events):
                async for type_, obj in events:
                    self.may_watch = self.is_listed = True
                    self._advance(obj["metadata"]["resourceVersion"])
                    if type_ == "DELETED":
                        for group in selection.groups(obj):
                            await self._forget(group, _name_of(obj))
                    elif type_ != "BOOKMARK":
                        await self._keep(obj)
        except KubernetesApiError as error:
            if error.code != 403 or selection.changes_only:
                raise
            await self._forbid(error, f"Listed every {self._poll_interval:g} s")

    def _advance(self, version: str) -> None:
        if version.isdecimal() and self._version.isdecimal() and int(version) < int(self._version):
            # A server that lost its data counts from an earlier version, and is silent until it has caught up.
            raise KubernetesApiError("The API server has gone back in time", code=410)
        self._version = version

    async def _forbid(self, error: KubernetesApiError, instead: str) -> None:
        self._version, self._forbidden_at = "", time.monotonic()
        if self.may_watch:
            self.may_watch = False
            fix = "allow the verbs `list` and `watch` to the service account of the triggerer"
            log.warning("%s. %s. Fix: %s", error, instead, fix)
            for observer in self._everybody():
                observer.wake()
                await self._give_way()

    @property
    def _poll_interval(self) -> float:
        asked_for = min((observer.poll_interval for observer in self._everybody()), default=LONGEST_PAUSE)
        return max(asked_for, SHORTEST_POLL)

    # What is kept, and whom it is told.

    async def _keep(self, obj: JSON) -> list[tuple[str, str]]:
        """Take what is read of the object; return where it is kept."""
        groups, name = self.selection.groups(obj), _name_of(obj)
        try:
            reading = self.selection.read(obj)
        except Exception as error:  # noqa: BLE001 (one odd object must not end the waits for all others)
            reading = error.with_traceback(None)  # which would keep the object
        for group in groups:
            if self.selection.changes_only:
                await self._tell(group, reading)
            elif reading != self._readings.setdefault(group, {}).get(name):
                self._readings[group][name] = reading
                await self._wake(group)
        if not groups:  # A list may be full of what is nobody's.
            await self._give_way()
        return [(group, name) for group in groups]

    async def _forget(self, group: str, name: str) -> None:
        kept = self._readings.get(group, {})
        if kept.pop(name, None) is not None:
            if not kept:
                del self._readings[group]
            await self._wake(group)

    async def _wake(self, group: str) -> None:
        for observer in self._observers.get(group, ()):
            observer.wake()
        await self._give_way()

    async def _tell(self, group: str, reading: Any) -> None:
        for observer in self._observers.get(group, ()) if reading is not None else ():
            observer.tell(reading)
        await self._give_way()

    async def _give_way(self) -> None:
        """Let those run who were woken, before there are so many that they hold up all others."""
        self._turns += 1
        if self._turns % TURN == 0:
            await asyncio.sleep(0)

    def _names(self) -> set[tuple[str, str]]:
        return {(group, name) for group, kept in self._readings.items() for name in kept}

    def _everybody(self) -> list[Observer]:
        return [observer for group in self._observers.values() for observer in group]

    # Faults.

    async def _bear(self, error: KubernetesApiError) -> None:
        """
        Go on after the error, without those who have waited for too long.

        Once there was an answer, any error may pass: a server that has just started refuses what it allows later.
        """
        if not (self.is_listed or error.transient or error.code == 410):
            raise error
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("%s in namespace %s: %s", self.selection.kind.plural, self.selection.namespace, error)
        since = self._failing_since
        given_up = [one for one in self._everybody() if now - max(since, one.joined) >= one.api_retry_timeout]
        await self._fail(given_up, error)

    async def _fail(self, observers: list[Observer], error: Exception) -> None:
        for observer in observers:
            observer.fail(error)
            await self._give_way()

    def _recover(self) -> None:
        self.is_forbidden = False
        if self._failing_since is not None:
            log.info("%s in namespace %s: listed again", self.selection.kind.plural, self.selection.namespace)
        self._failing_since = None
