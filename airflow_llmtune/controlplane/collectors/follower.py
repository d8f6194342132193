"""What is appended to a file that may not be there yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_CHUNK_BYTES = 64 * 1024


class Follower:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def added(self) -> Iterator[bytes]:
        """What is new, in pieces that are small enough to be read between two turns of an event loop."""
        try:
            size = self._path.stat().st_size
            if size == self._position:
                return
            with self._path.open("rb") as file:
                file.seek(self._position if size > self._position else 0)  # Shorter: a restart began it anew.
                while chunk := file.read(_CHUNK_BYTES):
                    self._position = file.tell()
                    yield chunk
        except FileNotFoundError:
            return


class LineSplitter:
    """Whole lines from pieces; of a line without an end at most a bounded part is kept."""

    def __init__(self, longest: int = 1 << 20) -> None:
        self._rest = b""
        self._longest = longest

    def feed(self, chunk: bytes) -> Iterator[str]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if len(self._rest) > self._longest:
            line, self._rest = self._rest, b""
            yield line.decode(errors="replace")
