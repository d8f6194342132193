"""Early stopping ``medianstop``: a trial that is worse than the ones before were at its age need not go on. Pure.

What is compared is the mean of the first ``start_step`` reports of the objective. A trial is stopped when its best
value so far is worse than the median of these means over all succeeded trials. Differs from Katib, whose fault
``strict`` keeps: there, despite the name, the limit is the mean of the means.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_llmtune.controlplane.algorithms.request import Rule, check_settings

_RULES: dict[str, Rule] = {
    "min_trials_required": (lambda text: int(text) > 0, "min_trials_required must be greater than zero (>0)"),
    "start_step": (lambda text: int(text) >= 1, "start_step must be greater or equal than one (>=1)"),
}
_MIN_TRIALS_REQUIRED = 3
_START_STEP = 4


def validate(settings: Mapping[str, str]) -> None:
    """Raise InvalidSettingsError."""
    check_settings("medianstop", settings, _RULES)


def early_mean(reports: Iterable[str], settings: Mapping[str, str], *, strict: bool) -> float | None:
    """Of a succeeded trial's objective reports, in order, reading no more than it needs; None without a number
    among them.

    In ``strict`` a report that is no number raises ``ValueError``, which keeps the Suggestion from going on.
    """
    numbers = map(float, reports) if strict else _numbers(reports)
    first = list(islice(numbers, _start_step(settings)))
    return statistics.fmean(first) if first else None


def _numbers(reports: Iterable[str]) -> Iterator[float]:
    for text in reports:
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            yield number


def _start_step(settings: Mapping[str, str]) -> int:
    return int(settings.get("start_step", _START_STEP))


def rules(
    means: Sequence[float], settings: Mapping[str, str], objective: Mapping[str, Any], *, strict: bool
) -> list[dict[str, Any]]:
    """The rule for the next trials; none before enough trials have succeeded."""
    if len(means) < int(settings.get("min_trials_required", _MIN_TRIALS_REQUIRED)):
        return []
    limit = statistics.fmean(means) if strict else statistics.median(means)
    return [
        {
            "name": objective["objectiveMetricName"],
            "value": str(limit),
            "comparison": "less" if objective["type"] == "maximize" else "greater",
            "startStep": _start_step(settings),
        }
    ]
