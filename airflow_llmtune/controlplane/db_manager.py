"""Katib's observation logs: what the metrics collectors reported, kept until the Trial is deleted.

The three calls are those of the ``api.v1.beta1.DBManager`` service. As there, logs are keyed by the Trial's
name alone, without its namespace, nothing is de-duplicated, and an entry without a time stamp is dropped.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Protocol

YEAR_ONE = "0001-01-01T00:00:00Z"
"""Go's zero time: the time stamp of a metric line that has none."""

UNAVAILABLE = "unavailable"
"""The value that stands for a metric that was never reported."""

_MOST_ENTRIES = 100_000
"""Of one Trial. Katib's database has no bound; what is beyond this loses its earliest entries."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricLog:
    time_stamp: str
    name: str
    value: str

    @cached_property
    def moment(self) -> datetime:
        """The time stamp, parsed once; raises ``ValueError`` when it is none."""
        return parse_time(self.time_stamp)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time; raises ``ValueError`` for anything else, also for a time without an offset."""
    if text[10:11] not in {"T", "t"}:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    # Year 1 cannot be shifted below its first day, so other zones than UTC are only converted where possible.
    return moment if moment.tzinfo == UTC else moment.astimezone(UTC)


class ReportJournal(Protocol):
    """Where reports go first; it raises what the reporter is to see."""

    def reports(self, trial: str) -> Iterable[str]: ...

    def add(self, trial: str, report: str) -> None: ...

    def remove(self, trial: str) -> None: ...


class NoReportJournal:
    """Of a DB manager that ends with its process."""

    def reports(self, trial: str) -> Iterable[str]:  # noqa: ARG002  there is none of any Trial
        return ()

    def add(self, trial: str, report: str) -> None: ...

    def remove(self, trial: str) -> None: ...


class DBManager:
    def __init__(self, journal: ReportJournal | None = None) -> None:
        self._journal: ReportJournal = journal or NoReportJournal()
        self._logs: dict[str, list[MetricLog]] = {}
        """By time; equal times in the order reported. Of an earlier process's Trials, those that were asked for."""

    def report_observation_log(self, trial_name: str, metric_logs: Sequence[MetricLog]) -> None:
        """All of it or, when a time stamp is none (``ValueError``), nothing."""
        added = [entry for entry in metric_logs if entry.time_stamp]
        added.sort(key=_moment)
        if added:
            known = self._log(trial_name)
            self._journal.add(trial_name, _encode(added))
            self._logs[trial_name] = _merged(trial_name, known, added)

    def get_observation_log(
        self, trial_name: str, metric_name: str = "", start_time: str = "", end_time: str = ""
    ) -> list[MetricLog]:
        """The entries of a metric ("": of all) by time, from and to a time, both of them included."""
        entries = self._log(trial_name)
        start = bisect_left(entries, parse_time(start_time), key=_moment) if start_time else 0
        end = bisect_right(entries, parse_time(end_time), key=_moment) if end_time else len(entries)
        return [entry for entry in entries[start:end] if metric_name in {"", entry.name}]

    def delete_observation_log(self, trial_name: str) -> None:
        self._journal.remove(trial_name)
        self._logs.pop(trial_name, None)

    def _log(self, trial_name: str) -> list[MetricLog]:
        found = self._logs.get(trial_name)
        if found is not None:
            return found
        read: list[MetricLog] = []
        for report in self._journal.reports(trial_name):
            read = _merged(trial_name, read, _decode(report))
        if read:
            self._logs[trial_name] = read
        return read


def _moment(entry: MetricLog) -> datetime:
    return entry.moment


def _merged(trial_name: str, known: list[MetricLog], added: list[MetricLog]) -> list[MetricLog]:
    """``known`` with the others put in by time, behind those of the same time; it is changed."""
    before = len(known)
    is_in_order = not known or known[-1].moment <= added[0].moment
    known.extend(added)
    if not is_in_order:
        known.sort(key=_moment)
    surplus = len(known) - _MOST_ENTRIES
    if surplus > 0:
        if before < _MOST_ENTRIES:
            log.warning("Trial %s has reported more than %d metric values: the earliest go", trial_name, _MOST_ENTRIES)
        del known[:surplus]
    return known


def _encode(entries: Iterable[MetricLog]) -> str:
    return json.dumps([(entry.time_stamp, entry.name, entry.value) for entry in entries], separators=(",", ":"))


def _decode(report: str) -> list[MetricLog]:
    return [MetricLog(*fields) for fields in json.loads(report)]
