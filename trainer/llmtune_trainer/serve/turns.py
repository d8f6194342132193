"""Who may use the model: one request at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is fair: an ordinary one would mostly go back to the thread that has just let it go."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._end()

    def let_others(self) -> None:
        """End the turn, and wait for the next one."""
        self._end()
        self._take()

    def _take(self) -> None:
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            self._changed.wait_for(lambda: self._line[0] is ticket)

    def _end(self) -> None:
        with self._changed:
            self._line.popleft()
            self._changed.notify_all()
