"""Images that are served inside the control plane instead of by a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class InProcessContainer:
    """What the function behind an in-process image sees of its pod."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    write_log: Callable[[bytes], None]
    others_ended: asyncio.Event
    """Set when the pod's containers that are processes have ended and will not be restarted."""
    root_pids: Callable[[], Sequence[int]] = tuple
    """The first processes of the pod's running containers that are processes."""
    namespace: str = ""


InProcessImage = Callable[[InProcessContainer], Awaitable[int]]
"""Runs one container and returns its exit code; it is cancelled when the pod is stopped."""
