"""Where a pod's files lie, and how the log of a container is read while it may still be written."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.kubelet.runtime.log_file import index_of, rotated

_LOOK_SECONDS = 0.05
_MICROSECONDS = 1_000_000


class PodFolder:
    """Where a pod's files lie. The name is short: programs make sockets below it, whose paths may not be long."""

    def __init__(self, root: Path, uid: str) -> None:
        self.path = root / uid[:13]
        self.volumes = self.path / "volumes"

    def container(self, name: str) -> Path:
        return self.path / "containers" / name

    def termination_log(self, name: str) -> Path:
        return self.path / "containers" / f"{name}.termination-log"

    def logs(self, name: str) -> Path:
        return self.path / "logs" / name

    def log(self, name: str, restart: int) -> Path:
        return self.logs(name) / f"{restart}.log"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def read(path: Path, options: LogOptions) -> bytes:
    """What is there now. A log that is not there is empty."""
    reader = LogReader(path, options)
    try:
        return reader.read()
    finally:
        reader.close()


async def stream(path: Path, options: LogOptions, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The same and, to be followed, what is added until the container has ended."""
    reader = LogReader(path, options)
    try:
        while True:
            is_last = not options.follow or has_ended()
            added = await asyncio.to_thread(reader.read)
            if added:
                yield added
            if is_last or reader.is_at_limit:
                return
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        reader.close()


class LogReader:
    """Each ``read`` gives what was added since the one before; the first one as much as the options ask for."""

    def __init__(self, path: Path, options: LogOptions) -> None:
        self._path = path
        self._options = options
        self._part: _Part | None = None
        self._left = options.limit_bytes
        self._at_line_start = True
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def is_at_limit(self) -> bool:
        return self._left is not None and self._left <= 0

    def close(self) -> None:
        """May be called while another thread still reads."""
        with self._lock:
            self._is_closed = True
            if self._part is not None:
                self._part.close()

    def read(self) -> bytes:
        with self._lock:
            if self._is_closed:
                return b""
            added = self._read_on() if self._part is not None else self._begin()
            if self._left is not None:
                added = added[: self._left]
                self._left -= len(added)
            return added

    def _begin(self) -> bytes:
        parts = _open_parts(self._path)
        if not parts:
            return b""
        texts = [part.read() for part in parts]
        starts = [0] * len(parts)
        if self._options.since is not None:
            moment = int(self._options.since.timestamp() * _MICROSECONDS)
            starts = [_line_start(text, part.offset_at(moment)) for part, text in zip(parts, texts, strict=True)]
        if self._options.tail_lines is not None:
            starts = _tail_starts(texts, starts, self._options.tail_lines)
        shown = [self._shown(part, text[start:], start) for part, text, start in zip(parts, texts, starts, strict=True)]
        for part in parts[:-1]:
            part.close()
        self._part = parts[-1]
        return b"".join(shown)

    def _read_on(self) -> bytes:
        """Over the file's end into the next one, if it has been rotated away."""
        part = self._part
        assert part is not None
        added = self._added(part)
        if part.is_current():
            return added
        added += self._added(part)
        parts = _open_parts(self._path)
        if len(parts) > 1 and parts[0].number == part.number:
            parts.pop(0).close()
        part.close()
        # More than one when it has been rotated again meanwhile.
        added += b"".join(self._added(one) for one in parts)
        for older in parts[:-1]:
            older.close()
        self._part = parts[-1] if parts else None
        return added

    def _added(self, part: _Part) -> bytes:
        start = part.position
        return self._shown(part, part.read(), start)

    def _shown(self, part: _Part, text: bytes, start: int) -> bytes:
        if not self._options.timestamps or not text:
            return text
        lines = re.findall(rb"[^\n]*\n|[^\n]+", text)  # Not at a carriage return, which a progress bar is full of.
        shown = []
        for number, line in enumerate(lines):
            if number > 0 or self._at_line_start:
                shown.append(_stamp(part.time_of(start)))
            shown.append(line)
            start += len(line)
        self._at_line_start = text.endswith(b"\n")
        return b"".join(shown)


class _Part:
    """One file of a log and its index, which may both grow or be renamed."""

    def __init__(self, path: Path, log: Path, index: Path) -> None:
        self._path = path
        self._log = log.open("rb")
        self._index = index.open("rb")
        self._unread = b""
        self._offsets: list[int] = []
        self._times: list[int] = []

    @property
    def position(self) -> int:
        return self._log.tell()

    @property
    def number(self) -> int:
        return os.fstat(self._log.fileno()).st_ino

    def is_current(self) -> bool:
        """Whether the log is still written to this file."""
        try:
            return self._path.stat().st_ino == self.number
        except FileNotFoundError:
            return True

    def read(self) -> bytes:
        text = self._log.read()
        *lines, self._unread = (self._unread + self._index.read()).split(b"\n")
        for line in lines:
            offset, _, moment = line.partition(b" ")
            self._offsets.append(int(offset))
            self._times.append(int(moment))
        return text

    def time_of(self, offset: int) -> int:
        position = bisect_right(self._offsets, offset) - 1
        return self._times[max(position, 0)] if self._times else 0

    def offset_at(self, moment: int) -> int:
        """Where begins what was written then or later."""
        position = bisect_left(self._times, moment)
        return self._offsets[position] if position < len(self._times) else self.position

    def close(self) -> None:
        self._log.close()
        self._index.close()


def _open_parts(path: Path) -> list[_Part]:
    """The older part and the current one, as far as they are there."""
    index = index_of(path)
    parts: list[_Part] = []
    # The current one first: if it is rotated now, it is found again as the older one.
    for log, its_index in ((path, index), (rotated(path), rotated(index))):
        try:
            part = _Part(path, log, its_index)
        except FileNotFoundError:
            continue
        if parts and part.number == parts[0].number:
            part.close()
        else:
            parts.insert(0, part)
    return parts


def _line_start(text: bytes, offset: int) -> int:
    """The first line that begins here or later."""
    if offset == 0 or offset >= len(text) or text[offset - 1 : offset] == b"\n":
        return offset
    end = text.find(b"\n", offset)
    return len(text) if end < 0 else end + 1


def _tail_starts(texts: Sequence[bytes], starts: Sequence[int], lines: int) -> list[int]:
    whole = b"".join(texts)
    begin = _tail_start(whole, lines)
    found = []
    for text, start in zip(texts, starts, strict=True):
        found.append(min(max(start, begin), len(text)))
        begin -= len(text)
    return found


def _tail_start(text: bytes, lines: int) -> int:
    if lines == 0:
        return len(text)
    position = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        position = text.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1


def _stamp(microseconds: int) -> bytes:
    moment = datetime.fromtimestamp(microseconds // _MICROSECONDS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % _MICROSECONDS:06d}000Z ".encode()
