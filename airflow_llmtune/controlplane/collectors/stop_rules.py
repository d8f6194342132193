"""When a training is to be stopped early. Pure.

All rules of a Trial must have been met once each; a rule that is met is done with. Differs from Katib: there a rule
with a start step is looked at only in that very report, here in that one and all later ones (for medianstop, whose
one rule compares the best value so far, there is no difference), and a value that is no number is fatal; here it is
passed over unless ``strict``.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from airflow_llmtune.controlplane.collectors.filters import Filter, find_all
from airflow_llmtune.controlplane.collectors.json_format import read_record
from airflow_llmtune.controlplane.go_text import go_float

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "equal": operator.eq,
    "less": operator.lt,
    "greater": operator.gt,
}
_FIELDS = 4


class NotANumberError(Exception):
    """A reported value that Katib's collector would end on."""


@dataclass(frozen=True)
class StopRule:
    name: str
    value: float
    comparison: str
    start_step: int
    """The rule counts from this report of its metric on; 0 is as good as 1."""


def parse_rule(text: str) -> StopRule:
    """``name;value;comparison;startStep``; raises ``ValueError``."""
    parts = text.split(";")
    if len(parts) != _FIELDS or parts[2] not in _COMPARISONS:
        raise ValueError(f"Invalid Early Stopping rule: {text}")
    return StopRule(parts[0], float(parts[1]), parts[2], int(parts[3]))


class StopWatch:
    """Is told every report of a metric; ``is_met`` when the training shall stop."""

    def __init__(self, rules: Sequence[StopRule], objective: str, objective_type: str) -> None:
        self._open = list(rules)
        self._objective = objective
        self._better = max if objective_type == "maximize" else min
        self._best: float | None = None
        self._reports: Counter[str] = Counter()

    @property
    def is_met(self) -> bool:
        return not self._open

    @property
    def names(self) -> set[str]:
        return {rule.name for rule in self._open}

    def report(self, name: str, value: float) -> None:
        self._reports[name] += 1
        if name == self._objective:
            value = self._best = value if self._best is None else self._better(self._best, value)
        self._open = [rule for rule in self._open if not self._meets(rule, name, value)]

    def _meets(self, rule: StopRule, name: str, value: float) -> bool:
        due = rule.name == name and self._reports[name] >= rule.start_step
        return due and _COMPARISONS[rule.comparison](value, rule.value)


class LineReader:
    """Tells a stop watch what the lines of a file report. ``patterns`` None: the lines are JSON."""

    def __init__(self, watch: StopWatch, patterns: Sequence[Filter] | None, *, strict: bool) -> None:
        self._watch = watch
        self._patterns = patterns
        self._strict = strict
        self._count = 0

    def read(self, line: str) -> bool:
        """Whether the training shall stop; raises FormatError and, if strict, NotANumberError."""
        self._count += 1
        reports = self._json_reports(line) if self._patterns is None else self._text_reports(line, self._patterns)
        for name, text in reports:
            value = self._number(name, text)
            if value is not None:
                self._watch.report(name, value)
            if self._watch.is_met:
                return True
        return False

    def _text_reports(self, line: str, patterns: Sequence[Filter]) -> Iterator[tuple[str, str]]:
        names = self._watch.names
        if any(name in line for name in names):
            # Strict: a value beside a rule's metric is fatal too.
            yield from (found for found in find_all(line, patterns) if self._strict or found[0] in names)

    def _json_reports(self, line: str) -> Iterator[tuple[str, str]]:
        record = read_record(line, self._count) if line or self._strict else {}
        for name in self._watch.names:
            if isinstance(record.get(name), str):
                yield name, record[name].strip()

    def _number(self, name: str, text: str) -> float | None:
        value = go_float(text)
        if self._strict:
            if value is None:
                raise NotANumberError(f"Unable to parse value {text!r} to float for metric {name}")
            return value
        return value if value is not None and math.isfinite(value) else None
