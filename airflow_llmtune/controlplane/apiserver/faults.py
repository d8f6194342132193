"""Fault injection: make the API server misbehave on purpose, for tests of those who talk to it."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any, Literal

from airflow_llmtune.controlplane.apiserver.errors import failure

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass
class Fault:
    """What happens to a matching request; all that is set happens, in the order of the fields."""

    method: str
    path: re.Pattern[str]
    times: int
    delay_seconds: float
    code: int | None
    message: str
    retry_after: int | None
    cut_watch: Literal["", "end", "abort", "expire"]
    cut_after_events: int
    refuse: bool
    cut_body_after: int | None
    body_seconds: float

    def matches(self, method: str, target: str, *, is_watch: bool) -> bool:
        if self.cut_watch and not is_watch:
            return False
        return self.method in {"", method} and self.path.search(target) is not None

    def status(self) -> dict[str, Any]:
        assert self.code is not None
        return failure(self.code, _REASONS.get(self.code, ""), self.message)


class Faults:
    """May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.injected = 0
        """How many requests have been spoilt so far."""

    def add(
        self,
        path: str = "",
        *,
        method: str = "",
        times: int = 1,
        delay_seconds: float = 0.0,
        code: int | None = None,
        message: str = "injected fault",
        retry_after: int | None = None,
        cut_watch: Literal["", "end", "abort", "expire"] = "",
        cut_after_events: int = 0,
        refuse: bool = False,
        cut_body_after: int | None = None,
        body_seconds: float = 0.0,
    ) -> None:
        """Spoil the next ``times`` requests whose method equals and whose path and query match the pattern.

        :param path: regular expression, searched in ``/path?query``; empty matches all
        :param delay_seconds: wait before anything else
        :param code: answer with this HTTP status and a fitting ``metav1.Status``
        :param retry_after: seconds for the ``Retry-After`` header that goes with ``code``
        :param cut_watch: for watches: ``end`` the stream as a server timeout does, ``abort`` the connection in the
            middle, or ``expire`` it with a 410 in the stream
        :param cut_after_events: how many events such a watch delivers before
        :param refuse: break the connection before anything is answered, and do nothing
        :param cut_body_after: break the connection after so many bytes of the answer's body
        :param body_seconds: spread the answer's body over this time
        """
        fault = Fault(
            method.upper(),
            re.compile(path),
            times,
            delay_seconds,
            code,
            message,
            retry_after,
            cut_watch,
            cut_after_events,
            refuse,
            cut_body_after,
            body_seconds,
        )
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, target: str, *, is_watch: bool) -> Fault | None:
        """The first fault for a request; it is used up by that."""
        with self._lock:
            for fault in self._faults:
                if fault.matches(method, target, is_watch=is_watch):
                    fault.times -= 1
                    self.injected += 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None
