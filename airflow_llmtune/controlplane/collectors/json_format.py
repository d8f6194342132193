"""Metric logs from lines that are JSON objects. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from airflow_llmtune.controlplane.collectors.timestamps import json_time
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, MetricLog

_LONGEST_SHOWN = 40


class FormatError(Exception):
    """A line of the metrics file is not what its format demands."""


def json_logs(lines: Iterable[str], metrics: Sequence[str]) -> Iterator[MetricLog]:
    """As upstream, only values that are texts count, and a line that is no object fails them all."""
    for number, line in enumerate(lines, 1):
        if line:
            record = read_record(line, number)
            stamp = json_time(record["timestamp"]) if "timestamp" in record else YEAR_ONE
            yield from (MetricLog(stamp, one, record[one]) for one in metrics if isinstance(record.get(one), str))


def read_record(line: str, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"line {number} is not JSON: {error}") from error
    if record is None:  # Go reads it as an empty object.
        return {}
    if not isinstance(record, dict):
        raise FormatError(f"line {number} is no JSON object")
    return record


def _number(text: str) -> float:
    """Go reads every number as a double, and refuses one that is too large."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number {text[:_LONGEST_SHOWN]} is too large")
    return number


def _refuse(name: str) -> NoReturn:
    """Python would take NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is no JSON value")
