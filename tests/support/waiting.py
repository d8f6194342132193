"""Waiting for what another thread, process or task does; never longer than a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], seconds: float = 10.0) -> T:
    """What ``condition`` returns when that is true at last."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not become true in {seconds:g} seconds"
        time.sleep(0.02)
    return found


async def eventually(condition: Callable[[], T | None], seconds: float = 20.0) -> T:
    """The same for what runs on this test's own loop."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.01)
        return found
