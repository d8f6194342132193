"""What the log says: sentences for people, and metric lines as Katib's StdOut collector reads them.

A metric line is ``<RFC 3339 time> <name>=<number>``. The collector reads ``nan`` as an empty text and fails on it,
so a number that is not finite is never printed.
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime


class Log:
    """Silent in all processes of a distributed run but the first."""

    def __init__(self, *, speaks: bool) -> None:
        self.speaks = speaks

    def say(self, text: str) -> None:
        if self.speaks:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def metric(self, name: str, value: float) -> None:
        if math.isfinite(value):
            self.say(metric_line(name, value, datetime.now(UTC)))


def metric_line(name: str, value: float, time: datetime) -> str:
    stamp = time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f"{stamp} {name}={float(value)!r}"
