"""
One LIST and WATCH for all waits of an event loop that look at the same cluster, kind, namespace and selector.

It tells states, not events: a wait sees what its object is now, whatever was missed meanwhile. Of each object only a
small reading is kept. What the API server answers amiss is dealt with once, however many wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.list_watch import ListWatch, Selection
from airflow_llmtune.triggers.shared_client import SharedClient

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["View", "join"]

JSON = dict[str, Any]


class View:
    """What one wait sees of a shared watch."""

    def __init__(self, watch: ListWatch, group: str, waiter: ClusterConnection, changed: asyncio.Event) -> None:
        self._watch = watch
        self._changed = changed
        self._error: Exception | None = None
        self.group = group
        self.poll_interval = waiter.poll_interval
        self.api_retry_timeout = waiter.api_retry_timeout
        self.joined = time.monotonic()
        self._changes: deque[Any] = deque()

    @property
    def is_listed(self) -> bool:
        """Whether what is missing here was missing in the API server's list as well."""
        self._raise_error()
        return self._watch.is_listed

    @property
    def is_polled(self) -> bool:
        """Whether watching is forbidden here, so that news comes with the next list only."""
        return not self._watch.may_watch

    @property
    def readings(self) -> list[Any]:
        """
        The readings of the group's objects as they are now.

        :raises KubernetesApiError: the API server refuses the list, or has given no answer for too long.
        """
        self._raise_error()
        readings = self._watch.readings_of(self.group)
        for reading in readings:
            if isinstance(reading, Exception):
                raise reading
        return readings

    @property
    def is_current(self) -> bool:
        """Whether the API server answers."""
        return self._watch.is_current

    def take_changes(self) -> list[Any]:
        """
        What has happened since the last call, where only changes are watched.

        :raises KubernetesApiError: as ``readings``.
        """
        self._raise_error()
        taken = list(self._changes)
        self._changes.clear()
        return taken

    @asynccontextmanager
    async def client(self) -> AsyncIterator[KubeflowClient]:
        """Ask the API server itself, behind which the watch may lag."""
        async with self._watch.client.open() as client:
            yield client.with_retries(self.api_retry_timeout)

    async def find(self, name: str) -> JSON | None:
        async with self.client() as client:
            return await client.find(self._watch.selection.kind, self._watch.selection.namespace, name)

    def wake(self) -> None:
        self._changed.set()

    def tell(self, reading: Any) -> None:
        self._changes.append(reading)
        self.wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.wake()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


@asynccontextmanager
async def join(
    waiter: ClusterConnection, selection: Selection, group: str, changed: asyncio.Event
) -> AsyncIterator[View]:
    """
    Take part in the shared watch, which begins with its first wait and ends with its last.

    :param waiter: names the cluster, and how long and how often it may be asked.
    :param group: whose readings the view has.
    :param changed: is set after each change of them, and when the watch fails.
    """
    watches = _of_this_loop()
    watch = watches.get(waiter, selection)
    view = View(watch, group, waiter, changed)
    watch.add(view)
    try:
        yield view
    finally:
        watch.remove(view)
        await watches.close_unused(waiter, watch)


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

    async def close_unused(self, connection: ClusterConnection, watch: ListWatch) -> None:
        """Close the watch if nobody takes part any more, and the client with the last watch of its cluster."""
        if watch.is_used:
            return
        cluster = connection.cluster
        if self._watches.get((cluster, watch.selection)) is watch:
            del self._watches[cluster, watch.selection]
        is_last = not any(other == cluster for other, _ in self._watches)
        client = self._clients.pop(cluster, None) if is_last else None
        # A wait is often cancelled more than once; what is open is closed all the same.
        closing = asyncio.create_task(_close(watch, client))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)


async def _close(watch: ListWatch, client: SharedClient | None) -> None:
    await watch.close()
    if client is not None:
        await client.close()


_ALL: WeakKeyDictionary[asyncio.AbstractEventLoop, SharedWatches] = WeakKeyDictionary()


def _of_this_loop() -> SharedWatches:
    return _ALL.setdefault(asyncio.get_running_loop(), SharedWatches())
