"""A triggerer's supervisor that only notes the XComs it is told: Airflow's own code writes them to it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

whose = contextvars.ContextVar("whose", default="nobody's")


class Supervisor:
    """Takes XComs as the triggerer's does, which has an answer for each."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str, Any]] = []
        self.contexts: set[str] = set()
        self.threads: set[int] = set()
        self.errors: list[Exception] = []

    @property
    def values(self) -> list[Any]:
        return [value for _, _, value in self.told]

    async def asend(self, message: Any) -> None:
        self.contexts.add(whose.get())
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        self.send(message)

    def send(self, message: Any) -> None:
        assert (message.key, message.dag_id, message.run_id, message.map_index) == ("progress", "dag", "run", -1)
        self.threads.add(threading.get_ident())
        self.told.append((time.monotonic(), message.task_id, message.value))
