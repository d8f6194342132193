"""How long a controller waits before it tries again what the API server has refused."""

from __future__ import annotations

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 60.0


class RetryDelays:
    """Doubled each time, for each object on its own."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def after_failure(self, uid: str) -> float:
        delay = self._next.get(uid, _FIRST_SECONDS)
        self._next[uid] = min(2 * delay, _LONGEST_SECONDS)
        return delay

    def after_success(self, uid: str) -> None:
        self._next.pop(uid, None)
