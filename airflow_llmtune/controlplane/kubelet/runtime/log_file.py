"""A container's log as it is written: bounded, and with the time of each piece in an index beside it.

The log itself holds the very bytes of the container. The index has a line per piece: where it begins and when it came,
in microseconds; lines that come within the same millisecond share one.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 10 * 1024 * 1024
"""A kubelet's default for one file. The one before it is kept, so a log has up to twice as much."""

_PIECE_BYTES = 64 * 1024
_MICROSECONDS_APART = 1000


def index_of(log: Path) -> Path:
    return log.with_suffix(".index")


def rotated(path: Path) -> Path:
    """Where the older part of a log or of its index lies."""
    return path.with_name(f"{path.name}.1")


class LogFile:
    """Begins the log anew. ``write`` never fails: what a full disk cannot take is lost, the container runs on."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        for old in (rotated(path), rotated(index_of(path))):
            old.unlink(missing_ok=True)
        self._open()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            with contextlib.suppress(OSError):
                self._write(data[start : start + _PIECE_BYTES])

    def close(self) -> None:
        self._log.close()
        self._index.close()

    def _open(self) -> None:
        self._log: BinaryIO = self._path.open("wb", buffering=0)
        self._index: BinaryIO = index_of(self._path).open("wb", buffering=0)
        self._size = 0
        self._last_time = 0

    def _write(self, piece: bytes) -> None:
        if self._size and self._size + len(piece) > self._max_bytes:
            self.close()
            for path in (index_of(self._path), self._path):
                path.replace(rotated(path))
            self._open()
        now = time.time_ns() // 1000
        if now - self._last_time >= _MICROSECONDS_APART:
            self._last_time = now
            # Before the piece: who reads the piece finds its time.
            self._index.write(b"%d %d\n" % (self._size, now))
        self._size += self._log.write(piece)
