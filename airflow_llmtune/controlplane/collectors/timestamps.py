"""The time of a metric, from a line of text or a JSON value, in Katib's form. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_llmtune.controlplane.db_manager import YEAR_ONE, parse_time

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NANOSECONDS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_rfc3339(text: str) -> bool:
    """As Go reads it: Python alone would also take week dates and hours without minutes."""
    if _RFC3339.fullmatch(text) is None:
        return False
    try:
        parse_time(text)
    except (ValueError, OverflowError):
        return False
    return True


def line_time(line: str) -> str:
    """The first word if that is a time; Go's zero time otherwise."""
    word, space, _ = line.partition(" ")
    return word if space and is_rfc3339(word) else YEAR_ONE


def json_time(value: Any) -> str:
    """A time as text, or seconds whose decimal digits are taken for a number of nanoseconds: ``.28721`` is 28721 ns."""
    if isinstance(value, str):
        return value if is_rfc3339(value) else YEAR_ONE
    if not isinstance(value, int | float) or isinstance(value, bool):
        return YEAR_ONE
    seconds, _, digits = f"{Decimal(repr(float(value))):f}".partition(".")
    nanoseconds = int(digits or 0) if digits != "0" else 0
    return _from_epoch(int(seconds) + nanoseconds // _NANOSECONDS, nanoseconds % _NANOSECONDS)


def _from_epoch(seconds: int, nanoseconds: int) -> str:
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return YEAR_ONE
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{moment.replace(tzinfo=None).isoformat()}{fraction}Z"


def wall_time(seconds: float) -> str:
    """The time of an event of an event file, in whole seconds as Katib's collector writes it."""
    return _from_epoch(int(seconds), 0)
