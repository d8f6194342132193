"""
One LIST and WATCH for all waits of an event loop that look at the same cluster, kind, namespace and selector.

It tells states, not events: a wait sees what its object is now, whatever was missed meanwhile. Of each object only a
small reading is kept. What the API server answers amiss is dealt with once, however many wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.list_watch import ListWatch, Selection
from airflow_llmtune.triggers.shared_client import SharedClient

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["Companion", "View", "join", "leave"]

JSON = dict[str, Any]


class Companion(NamedTuple):
    """What a wait watches beside its object, and what it does with the news of it."""

    selection: Selection
    take: Callable[[View], None]


class View:
    """What one wait sees of a shared watch. There are two or three for each wait, so they are small."""

    __slots__ = (
        "_changed",
        "_changes",
        "_error",
        "api_retry_timeout",
        "group",
        "joined",
        "poll_interval",
        "watch",
    )

    def __init__(self, watch: ListWatch, group: str, waiter: ClusterConnection, changed: asyncio.Event) -> None:
        self.watch = watch
        self._changed = changed
        self._error: Exception | None = None
        self.group = group
        self.poll_interval = waiter.poll_interval
        self.api_retry_timeout = waiter.api_retry_timeout
        self.joined = time.monotonic()
        self._changes: list[Any] = []

    @property
    def is_listed(self) -> bool:
        """Whether what is missing here was missing in the API server's list as well."""
        self._raise_error()
        return self.watch.is_listed

    @property
    def is_polled(self) -> bool:
        """Whether watching is forbidden here, so that news comes with the next list only."""
        return not self.watch.may_watch

    @property
    def is_forbidden(self) -> bool:
        """Whether nothing is told of what the wait can do without."""
        return self.watch.is_forbidden

    @property
    def readings(self) -> list[Any]:
        """
        The readings of the group's objects as they are now.

        :raises KubernetesApiError: the API server refuses the list, or has given no answer for too long.
        """
        self._raise_error()
        return _sound(self.watch.readings_of(self.group))

    @property
    def is_current(self) -> bool:
        """Whether it is listed, and the API server still answers."""
        self._raise_error()
        return self.watch.is_current

    def take_changes(self) -> list[Any]:
        """
        What has happened since the last call, where only changes are watched.

        :raises KubernetesApiError: as ``readings``.
        """
        self._raise_error()
        taken, self._changes = self._changes, []
        return _sound(taken)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[KubeflowClient]:
        """Ask the API server itself, behind which the watch may lag."""
        async with self.watch.asking, self.watch.client.open() as client:
            self._raise_error()
            yield client.with_retries(self.api_retry_timeout)

    async def find(self, name: str) -> JSON | None:
        async with self.client() as client:
            return await client.find(self.watch.selection.kind, self.watch.selection.namespace, name)

    def wake(self) -> None:
        self._changed.set()

    def tell(self, reading: Any) -> None:
        if self._error is None:  # Else nobody takes it any more.
            self._changes.append(reading)
            self.wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.wake()

    def _raise_error(self) -> None:
        if self._error is not None:
            # Thousands of waits may raise it, and each would add its own lines.
            raise self._error.with_traceback(None)


def _sound(readings: list[Any]) -> list[Any]:
    for reading in readings:
        if isinstance(reading, Exception):
            raise reading.with_traceback(None)
    return readings


def join(waiter: ClusterConnection, selection: Selection, group: str, changed: asyncio.Event) -> View:
    """
    Take part in the shared watch, which begins with its first wait; ``leave`` has to follow.

    :param waiter: names the cluster, and how long and how often it may be asked.
    :param group: whose readings the view has.
    :param changed: is set after each change of them, and when the watch fails.
    """
    watch = _of_this_loop().get(waiter, selection)
    view = View(watch, group, waiter, changed)
    watch.add(view)
    return view


async def leave(waiter: ClusterConnection, *views: View | None) -> None:
    """Take part no longer; what nobody takes part in is closed, also when this is cancelled once more."""
    left = [view for view in views if view is not None]
    for view in left:
        view.watch.remove(view)
    for closing in [_of_this_loop().close(waiter, view.watch) for view in left if not view.watch.is_used]:
        await asyncio.shield(closing)


class SharedWatches:
    """The watches of one event loop, and the clients behind them."""

    def __init__(self) -> None:
        self._clients: dict[Hashable, SharedClient] = {}
        self._watches: dict[tuple[Hashable, Selection], ListWatch] = {}
        # The event loop itself holds its tasks only weakly.
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, connection: ClusterConnection, selection: Selection) -> ListWatch:
        """Return the watch that runs already, or begin it."""
        cluster = connection.cluster
        watch = self._watches.get((cluster, selection))
        if watch is None or watch.has_ended:
            if cluster not in self._clients:
                self._clients[cluster] = SharedClient(lambda: connection.new_hook(api_retry_timeout=0.0))
            watch = self._watches[cluster, selection] = ListWatch(self._clients[cluster], selection)
        return watch

    def close(self, connection: ClusterConnection, watch: ListWatch) -> asyncio.Task[None]:
        """Begin to close the watch, and the client with the last watch of its cluster."""
        cluster = connection.cluster
        if self._watches.get((cluster, watch.selection)) is watch:
            del self._watches[cluster, watch.selection]
        is_last = not any(other == cluster for other, _ in self._watches)
        client = self._clients.pop(cluster, None) if is_last else None
        closing = asyncio.create_task(_close(watch, client))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing


async def _close(watch: ListWatch, client: SharedClient | None) -> None:
    await watch.close()
    if client is not None:
        await client.close()


_ALL: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedWatches] = WeakKeyDictionary()


def _of_this_loop() -> SharedWatches:
    return _ALL.setdefault(asyncio.get_running_loop(), SharedWatches())
