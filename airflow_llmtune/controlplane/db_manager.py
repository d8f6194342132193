"""Katib's observation logs: what the metrics collectors reported, kept until the Trial is deleted.

The three calls are those of the ``api.v1.beta1.DBManager`` service. As there, logs are keyed by the Trial's
name alone, without its namespace, nothing is de-duplicated, and an entry without a time stamp is dropped.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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

    def add(self, trial: str, report: str, outdated: int) -> None:
        """``outdated``: how many of the Trial's first reports go for it."""

    def remove(self, trial: str) -> None: ...


class NoReportJournal:
    """Of a DB manager that ends with its process."""

    def reports(self, trial: str) -> Iterable[str]:  # noqa: ARG002  there is none of any Trial
        return ()

    def add(self, trial: str, report: str, outdated: int) -> None: ...

    def remove(self, trial: str) -> None: ...


class _TrialLog:
    def __init__(self) -> None:
        self.entries: list[MetricLog] = []
        """By time; equal times in the order reported."""
        self._sizes: deque[int] = deque()
        """How many entries each report in the journal has, in the order reported."""
        self._reported = 0

    def outdated_by(self, count: int) -> int:
        """How many of the first reports can go for that many more entries: those behind them are enough."""
        left, found = self._reported + count, 0
        for size in self._sizes:
            left -= size
            if left < _MOST_ENTRIES:
                break
            found += 1
        return found

    def add(self, added: Sequence[MetricLog], outdated: int) -> bool:
        """Whether it is full with that, for the first time. Entries are put in by time, behind those of the same."""
        entries = self.entries
        was_full = len(entries) == _MOST_ENTRIES
        is_in_order = not entries or entries[-1].moment <= added[0].moment
        entries.extend(added)
        if not is_in_order:
            entries.sort(key=_moment)
        surplus = max(0, len(entries) - _MOST_ENTRIES)
        del entries[:surplus]
        self._sizes.append(len(added))
        self._reported += len(added) - sum(self._sizes.popleft() for _ in range(outdated))
        return surplus > 0 and not was_full


class DBManager:
    def __init__(self, journal: ReportJournal | None = None) -> None:
        self._journal: ReportJournal = journal or NoReportJournal()
        self._logs: dict[str, _TrialLog] = {}
        """Of an earlier process's Trials, those that were asked for."""

    def report_observation_log(self, trial_name: str, metric_logs: Sequence[MetricLog]) -> None:
        """All of it or, when a time stamp is none (``ValueError``), nothing."""
        added = [entry for entry in metric_logs if entry.time_stamp]
        added.sort(key=_moment)
        if added:
            known = self._log(trial_name)
            outdated = known.outdated_by(len(added))
            self._journal.add(trial_name, _encode(added), outdated)
            self._logs[trial_name] = known
            if known.add(added, outdated):
                log.warning(
                    "Trial %s has reported more than %d metric values: the earliest go", trial_name, _MOST_ENTRIES
                )

    def get_observation_log(
        self, trial_name: str, metric_name: str = "", start_time: str = "", end_time: str = ""
    ) -> list[MetricLog]:
        """The entries of a metric ("": of all) by time, from and to a time, both of them included."""
        entries = self._log(trial_name).entries
        start = bisect_left(entries, parse_time(start_time), key=_moment) if start_time else 0
        end = bisect_right(entries, parse_time(end_time), key=_moment) if end_time else len(entries)
        return [entry for entry in entries[start:end] if metric_name in {"", entry.name}]

    def values_of(self, trial_name: str, metric_name: str) -> Iterator[str]:
        """By time, and only as far as they are asked for; to be read before anything else is reported."""
        return (entry.value for entry in self._log(trial_name).entries if entry.name == metric_name)

    def delete_observation_log(self, trial_name: str) -> None:
        self._journal.remove(trial_name)
        self._logs.pop(trial_name, None)

    def _log(self, trial_name: str) -> _TrialLog:
        found = self._logs.get(trial_name)
        if found is not None:
            return found
        read = _TrialLog()
        for report in self._journal.reports(trial_name):
            read.add(_decode(report), outdated=0)
        if read.entries:
            self._logs[trial_name] = read
        return read


def _moment(entry: MetricLog) -> datetime:
    return entry.moment


def _encode(entries: Iterable[MetricLog]) -> str:
    return json.dumps([(entry.time_stamp, entry.name, entry.value) for entry in entries], separators=(",", ":"))


def _decode(report: str) -> list[MetricLog]:
    return [MetricLog(*fields) for fields in json.loads(report)]
