"""From a Trial's metric logs to its observation, and from observations to the best Trial. Pure.

What ``strict`` does is Katib's own way, faults included; see ``controlplane/deviations.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.db_manager import UNAVAILABLE, MetricLog
from airflow_llmtune.controlplane.go_text import go_float

Objective = Mapping[str, Any]


@dataclass(frozen=True)
class Optimum:
    trial: dict[str, Any] | None = None
    reaches_goal: bool = False


def finite(text: str) -> float | None:
    """The number a metric value is, or None for one that nothing can be compared with."""
    number = go_float(text)
    return number if number is not None and math.isfinite(number) else None


def wanted_metrics(objective: Objective) -> list[str]:
    return [objective["objectiveMetricName"], *objective.get("additionalMetricNames", ())]


def fold(logs: Iterable[MetricLog], objective: Objective, *, strict: bool = False) -> dict[str, Any]:
    """An observation: per metric the smallest, the largest and the latest value as they were reported.

    The metrics come in the order of the objective (upstream: any order). Raises ``ValueError`` on a bad time
    stamp. Differs from Katib unless strict: a value of the objective that is no finite number (``loss=nan`` is
    reported as an empty text) is passed over, so that it can become neither the latest value nor the optimum.
    """
    by_name: dict[str, list[MetricLog]] = {
        strategy.get("name", ""): [] for strategy in objective.get("metricStrategies", ())
    }
    for entry in logs:
        if entry.name in by_name:
            by_name[entry.name].append(entry)
    if strict:
        return {"metrics": [_metric_as_reported(name, entries) for name, entries in by_name.items()]}
    main = objective["objectiveMetricName"]
    return {"metrics": [_metric(name, entries, name == main) for name, entries in by_name.items()]}


def _metric(name: str, entries: Sequence[MetricLog], is_objective: bool) -> dict[str, str]:
    numbers = [(value, entry) for entry in entries for value in [finite(entry.value)] if value is not None]
    candidates = [entry for _, entry in numbers] if is_objective else list(entries)
    return {
        "name": name,
        "min": min(numbers, key=lambda pair: pair[0])[1].value if numbers else UNAVAILABLE,
        "max": max(numbers, key=lambda pair: pair[0])[1].value if numbers else UNAVAILABLE,
        "latest": _latest(candidates),
    }


def _metric_as_reported(name: str, entries: Sequence[MetricLog]) -> dict[str, str]:
    """Katib's fold: a first ``nan`` is never displaced, and an empty latest value is left out of the JSON."""
    smallest = largest = (0.0, UNAVAILABLE)
    for entry in entries:
        number = go_float(entry.value)
        if number is None:
            continue
        if smallest[1] == UNAVAILABLE:
            smallest = largest = (number, entry.value)
        elif number < smallest[0]:
            smallest = (number, entry.value)
        elif number > largest[0]:
            largest = (number, entry.value)
    latest = _latest(entries)
    return {"name": name, "min": smallest[1], "max": largest[1], **({"latest": latest} if latest else {})}


def _latest(entries: Sequence[MetricLog]) -> str:
    value, newest = UNAVAILABLE, None
    for entry in entries:
        moment = entry.moment
        if newest is None or moment >= newest:
            value, newest = entry.value, moment
    return value


def find_metric(observation: Mapping[str, Any], name: str) -> Mapping[str, str] | None:
    return next((metric for metric in observation.get("metrics", ()) if metric["name"] == name), None)


def objective_value(observation: Mapping[str, Any], objective: Objective) -> str | None:
    """What the objective's strategy selects, ``latest`` when that is unavailable; None without any."""
    name = objective["objectiveMetricName"]
    metric = find_metric(observation, name)
    strategy = next(
        (one.get("value") for one in objective.get("metricStrategies", ()) if one.get("name") == name), None
    )
    if metric is None or strategy not in {"min", "max", "latest"}:
        return None
    value = metric.get(strategy, "")
    if value == UNAVAILABLE:
        value = metric.get("latest", "")
    return None if value == UNAVAILABLE else value


def is_available(observation: Mapping[str, Any], objective: Objective) -> bool:
    metric = find_metric(observation, objective["objectiveMetricName"])
    return metric is not None and metric.get("latest", "") != UNAVAILABLE


def best_trial(trials: Iterable[dict[str, Any]], objective: Objective) -> dict[str, Any] | None:
    """The Trial with the best finite objective; the first seen wins ties."""
    best: tuple[float, dict[str, Any]] | None = None
    for trial in trials:
        number = trial_number(trial, objective)
        if number is not None and (best is None or _is_better(number, best[0], objective)):
            best = (number, trial)
    return None if best is None else best[1]


def find_optimum(trials: Iterable[dict[str, Any]], objective: Objective, *, strict: bool = False) -> Optimum:
    """The best Trial, and whether it is as good as the goal.

    Differs from Katib unless strict: there a value that is no number makes its Trial the best at once, and a
    first NaN can never be displaced; here such a Trial takes no part.
    """
    if strict:
        return _scan(trials, objective)
    best = best_trial(trials, objective)
    number = None if best is None else trial_number(best, objective)
    return Optimum(best, number is not None and reaches_goal(number, objective))


def _scan(trials: Iterable[dict[str, Any]], objective: Objective) -> Optimum:
    """Katib's loop: the number to beat stays what it was, 0 at first, when a text takes the lead."""
    best: dict[str, Any] | None = None
    to_beat, reached = 0.0, False
    for trial in trials:
        text = objective_value(trial.get("status", {}).get("observation", {}), objective)
        if text is None:
            continue
        number = go_float(text)
        if number is None:
            best = trial
            continue
        if best is None or _is_better(number, to_beat, objective):
            best, to_beat = trial, number
        reached = reached or reaches_goal(to_beat, objective)
    return Optimum(best, reached)


def trial_number(trial: Mapping[str, Any], objective: Objective) -> float | None:
    """The Trial's objective as a finite number."""
    text = objective_value(trial.get("status", {}).get("observation", {}), objective)
    return None if text is None else finite(text)


def reaches_goal(number: float, objective: Objective) -> bool:
    goal: float | None = objective.get("goal")
    if goal is None:
        return False
    return number <= goal if objective["type"] == "minimize" else number >= goal


def _is_better(number: float, best: float, objective: Objective) -> bool:
    return number < best if objective["type"] == "minimize" else number > best
