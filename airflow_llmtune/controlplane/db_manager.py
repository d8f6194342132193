"""Katib's observation logs: what the metrics collectors reported, kept until the Trial is deleted.

The three calls are those of the ``api.v1.beta1.DBManager`` service. As there, logs are keyed by the Trial's
name alone, without its namespace, nothing is de-duplicated, and an entry without a time stamp is dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

YEAR_ONE = "0001-01-01T00:00:00Z"
"""Go's zero time: the time stamp of a metric line that has none."""

UNAVAILABLE = "unavailable"
"""The value that stands for a metric that was never reported."""


@dataclass(frozen=True)
class MetricLog:
    time_stamp: str
    name: str
    value: str


def parse_time(text: str) -> datetime:
    """An RFC 3339 time; raises ``ValueError`` for anything else, also for a time without an offset."""
    if text[10:11] not in {"T", "t"}:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    # Year 1 cannot be shifted below its first day, so other zones than UTC are only converted where possible.
    return moment if moment.tzinfo == UTC else moment.astimezone(UTC)


class DBManager:
    def __init__(self) -> None:
        self._logs: dict[str, list[MetricLog]] = defaultdict(list)

    def report_observation_log(self, trial_name: str, metric_logs: Sequence[MetricLog]) -> None:
        self._logs[trial_name].extend(entry for entry in metric_logs if entry.time_stamp)

    def get_observation_log(self, trial_name: str, metric_name: str = "") -> list[MetricLog]:
        """The entries of a metric ("": of all) by time; equal times in the order reported."""
        found = [entry for entry in self._logs.get(trial_name, ()) if metric_name in {"", entry.name}]
        return sorted(found, key=lambda entry: parse_time(entry.time_stamp))

    def delete_observation_log(self, trial_name: str) -> None:
        self._logs.pop(trial_name, None)
