"""What the log says: sentences for people, and metrics as Katib's collectors read them.

As text a metric is a line ``<RFC 3339 time> <name>=<number>``; as JSON each line, sentences too, is an object, since
Katib's parser gives up on any that is not. It reads ``nan`` as an empty text and fails on it, so a number that is not
finite is never printed; and of JSON it takes only values that are texts.
"""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import UTC, datetime
from typing import Protocol

# What Katib's filter of the StdOut collector takes for a name.
NOT_OF_A_NAME = re.compile(r"[^\w-]")


class Reports(Protocol):
    def report(self, name: str, value: float, time: str) -> None: ...


class Log:
    """Silent in all processes of a distributed run but the first.

    :param form: ``text`` or ``json``.
    :param push: takes the metrics as well.
    """

    def __init__(self, *, speaks: bool, form: str = "text", push: Reports | None = None) -> None:
        self.speaks = speaks
        self._form = form
        self._push = push if speaks else None

    def say(self, text: str) -> None:
        if self._form == "json":
            text = json.dumps({"timestamp": stamp(datetime.now(UTC)), "message": text}, ensure_ascii=False)
        self._write(text)

    def metric(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            return
        name, now = NOT_OF_A_NAME.sub("_", name), datetime.now(UTC)
        self._write(metric_line(name, value, now) if self._form == "text" else metric_object(name, value, now))
        if self._push is not None:
            self._push.report(name, float(value), stamp(now))

    def _write(self, line: str) -> None:
        if self.speaks:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def metric_line(name: str, value: float, time: datetime) -> str:
    return f"{stamp(time)} {name}={float(value)!r}"


def metric_object(name: str, value: float, time: datetime) -> str:
    return json.dumps({"timestamp": stamp(time), name: repr(float(value))})


def stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
