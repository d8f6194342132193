"""For how long a wait goes on although nothing happens."""

from __future__ import annotations

import time

__all__ = ["Patience"]


class Patience:
    """
    Tells when to look closer at an object, from when it moved and when one of its pods was complained of.

    :param stall_timeout: seconds without progress after which the object has stalled.
    :param startup_timeout: seconds without progress after a complaint, after which to look whether a pod can start.
    """

    __slots__ = ("_complained", "_is_quiet", "_since", "_stall_timeout", "_startup_timeout")

    def __init__(self, stall_timeout: float | None, startup_timeout: float | None) -> None:
        self._stall_timeout = stall_timeout
        self._startup_timeout = startup_timeout
        self._since = time.monotonic()
        self._complained: float | None = None
        self._is_quiet = False

    def moved(self) -> None:
        """There was progress."""
        self._since, self._is_quiet = time.monotonic(), False

    def hold(self) -> None:
        """Who cannot look cannot tell that nothing moves."""
        self._since = time.monotonic()

    def complain(self) -> None:
        """A pod may not be able to start; what is said again does not begin anew."""
        if self._complained is None:
            self._complained = time.monotonic()

    def looked(self) -> None:
        """Only another complaint is a reason to look again."""
        self._complained = None

    def keep_quiet(self) -> None:
        """It was warned of, and is not again before there was progress."""
        self._is_quiet = True

    @property
    def has_stalled(self) -> bool:
        due = self._stalls_at
        return due is not None and due <= time.monotonic()

    @property
    def wants_a_look(self) -> bool:
        due = self._looks_at
        return due is not None and due <= time.monotonic()

    @property
    def seconds_left(self) -> float | None:
        """Until one of the two, should nothing happen; None for ever."""
        due = [moment for moment in (self._stalls_at, self._looks_at) if moment is not None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    @property
    def _stalls_at(self) -> float | None:
        return None if self._stall_timeout is None or self._is_quiet else self._since + self._stall_timeout

    @property
    def _looks_at(self) -> float | None:
        if self._startup_timeout is None or self._complained is None or self._is_quiet:
            return None
        return max(self._since, self._complained) + self._startup_timeout
