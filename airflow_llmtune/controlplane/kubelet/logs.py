"""Container logs: one file per start of a container, kept until the pod is deleted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_LOOK_SECONDS = 0.05
_TAIL_BLOCK = 64 * 1024


class PodFolder:
    """Where a pod's files lie. The name is short: programs make sockets below it, whose paths may not be long."""

    def __init__(self, root: Path, uid: str) -> None:
        self.path = root / uid[:13]
        self.volumes = self.path / "volumes"

    def container(self, name: str) -> Path:
        return self.path / "containers" / name

    def termination_log(self, name: str) -> Path:
        return self.path / "containers" / f"{name}.termination-log"

    def log(self, name: str, restart: int) -> Path:
        return self.path / "logs" / name / f"{restart}.log"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def read(path: Path, *, tail_lines: int | None = None, limit_bytes: int | None = None) -> bytes:
    """The log, or its last lines; of those at most so many bytes. A log that is not there is empty."""
    try:
        content = path.read_bytes() if tail_lines is None else _tail(path, tail_lines)
    except FileNotFoundError:
        return b""
    return content if limit_bytes is None else content[:limit_bytes]


def _tail(path: Path, lines: int) -> bytes:
    if lines <= 0:
        return b""
    with path.open("rb") as file:
        position = file.seek(0, 2)
        content = b""
        while position > 0 and content.rstrip(b"\n").count(b"\n") < lines:
            size = min(_TAIL_BLOCK, position)
            position = file.seek(position - size)
            content = file.read(size) + content
    return b"".join(content.splitlines(keepends=True)[-lines:])


async def follow(path: Path, start: int, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What the file holds from an offset on and what is still appended, until the container has ended."""
    position = start
    while True:
        ended = has_ended()
        try:
            with path.open("rb") as file:
                file.seek(position)
                added = file.read()
        except FileNotFoundError:
            added = b""
        if added:
            position += len(added)
            yield added
        if ended:
            return
        await asyncio.sleep(_LOOK_SECONDS)
