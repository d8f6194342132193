"""
The XCom ``progress`` of tasks that are deferred: seldom, in turn, and none begun after the wait has ended.

Each XCom is a request to Airflow's API and a row in its database, from the one process that all waits share.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["XCOM_KEY", "Publication", "push"]

JSON = dict[str, Any]
log = logging.getLogger(__name__)

XCOM_KEY = "progress"
# Between two XComs of one wait, and between any two of this process.
REST_SECONDS = 15.0
PACE_SECONDS = 0.2
# Longer than this no answer is worth; the next state comes anyway.
ANSWER_SECONDS = 30.0
# Airflow gives the whole of on_kill 30 seconds.
LAST_SECONDS = 8.0


class Publication:
    """
    Writes one wait's progress where it changed; a wait that has nothing to tell costs nothing.

    :param task_instance: the trigger's own; None where there is no triggerer, and then nothing is written.
    :param read: returns the newest state, when it is about to be written.
    """

    __slots__ = ("_is_queued", "_read", "_task_instance", "next_at")

    def __init__(self, task_instance: Any, read: Callable[[], JSON]) -> None:
        self._task_instance = task_instance
        self._read: Callable[[], JSON] | None = read
        self._is_queued = False
        self.next_at = 0.0

    def changed(self) -> None:
        """Have the newest state written, soon: what changes until then goes with it."""
        if self._task_instance is None or self._read is None or self._is_queued:
            return
        self._is_queued = True
        self.next_at = max(self.next_at, time.monotonic())
        _of_this_loop().put(self)

    def close(self) -> None:
        """Drop what is not written yet: the task is the one to write from now on, or another try."""
        self._read = None

    @property
    def is_open(self) -> bool:
        return self._read is not None

    async def write(self) -> None:
        assert self._read is not None, "is_open comes first"
        self._is_queued = False
        self.next_at = time.monotonic() + REST_SECONDS
        async with asyncio.timeout(ANSWER_SECONDS):
            await _set_xcom(self._task_instance, self._read())


class _Publisher:
    """The queue of one event loop. Its task is there only while something is in it."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Publication]] = []
        self._order = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._has_failed = False

    def put(self, publication: Publication) -> None:
        heapq.heappush(self._queue, (publication.next_at, next(self._order), publication))
        if self._task is None or self._task.done():
            # In an empty context: what it logs is nothing of the task whose wait happened to come first.
            self._task = asyncio.create_task(self._run(), context=contextvars.Context(), name="progress")

    async def _run(self) -> None:
        while self._queue:
            due, _, publication = self._queue[0]
            pause = max(self._next_at, due) - time.monotonic()
            if pause <= 0 or not publication.is_open:
                heapq.heappop(self._queue)
                await self._write(publication)
            else:
                # Never longer: one that has not rested may come while the first in the queue does.
                await asyncio.sleep(min(pause, PACE_SECONDS))
        self._task = None  # It would keep its event loop alive.

    async def _write(self, publication: Publication) -> None:
        if not publication.is_open:
            return
        self._next_at = time.monotonic() + PACE_SECONDS
        try:
            await publication.write()
        except Exception as error:  # noqa: BLE001 (nobody's training ends for want of a number on a page)
            level = logging.DEBUG if self._has_failed else logging.WARNING
            self._has_failed = True
            log.log(level, "The XCom %s of a deferred task could not be written: %r", XCOM_KEY, error)


_PUBLISHERS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Publisher] = WeakKeyDictionary()


def _of_this_loop() -> _Publisher:
    return _PUBLISHERS.setdefault(asyncio.get_running_loop(), _Publisher())


async def push(task_instance: Any, value: JSON) -> None:
    """Write it now, without a turn: what it is of is about to be deleted. Nothing fails for want of it."""
    try:
        async with asyncio.timeout(LAST_SECONDS):
            await _set_xcom(task_instance, value)
    except Exception as error:  # noqa: BLE001 (the run itself may have been deleted; the log has it as well)
        log.warning("The XCom %s of a task that was ended could not be written: %r", XCOM_KEY, error)


async def _set_xcom(task_instance: Any, value: JSON) -> None:
    # Imported here: it reads Airflow's configuration, and at DAG-parse time nobody needs it.
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import XCom

    where = {key: getattr(task_instance, key) for key in ("dag_id", "task_id", "run_id", "map_index")}
    if XCom.serialize_value is BaseXCom.serialize_value:
        await XCom.aset(XCOM_KEY, value, **where)
    else:
        # A site's own XCom backend may write to a bucket here, which must not hold up all other waits.
        await asyncio.to_thread(XCom.set, XCOM_KEY, value, **where)
