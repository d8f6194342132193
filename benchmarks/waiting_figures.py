"""What is made of the measurements: centiles, growth, and which goals are met. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = dict[str, Any]

GOALS = {
    "requests_per_minute": 3.0,
    "connections_per_kind": 1.0,
    "kb_per_wait": 10.0,
    "p99_s": 1.0,
    "blocked_ms": 100.0,
    # Not the goal itself, but our part of it: Airflow's own heap is what takes a collection so long.
    "blocked_without_gc_ms": 100.0,
}


def centile(values: Sequence[float], share: float) -> float:
    """The nearest rank: of ten values, the 0.9 one is the ninth."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def latency(sent: Mapping[str, float], told: Mapping[str, float], now: float) -> Figures:
    """
    From each write to its event, in seconds.

    One that has not been told by now counts with the time that it has waited so far, so that a waiter does not look
    better for those that it never told; ``told`` of ``finished`` says how many these are.
    """
    seconds = [told.get(name, now) - at for name, at in sent.items()]
    span = max(sent.values()) - min(sent.values())
    return {
        "finished": len(sent),
        "told": sum(name in told for name in sent),
        "per_s": (len(sent) - 1) / span if span else 0.0,
        "p50_s": centile(seconds, 0.5),
        "p99_s": centile(seconds, 0.99),
    }


def beyond(figures: Mapping[str, Any], baseline: Mapping[str, Any]) -> float:
    """Kilobytes per wait above those of Airflow's own trigger object, as many of them."""
    return float(figures["idle"]["kb_per_wait"] - baseline["idle"]["kb_per_wait"])


def growth(rows: Mapping[int, Mapping[str, Any]], cost: str) -> float | None:
    """How many times as much the most waits cost as the fewest; None where there is nothing to compare with."""
    values = [rows[count]["idle"][cost] for count in sorted(rows) if "idle" in rows[count]]
    return values[-1] / values[0] if len(values) > 1 and values[0] > 0 else None


def against_goals(rows: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]) -> Figures:
    """Ours at its worst, over all numbers of waits, beside each goal; None for what was not measured."""
    idle = {count: row["idle"] for count, row in rows.items() if "idle" in row}
    compared = [count for count in idle if "idle" in baseline.get(count, {})]
    phases = [row[phase] for row in rows.values() for phase in ("start", "restart") if phase in row]
    measured = {
        "requests_per_minute": _worst(one["requests_per_minute"] + one["renewals_per_minute"] for one in idle.values()),
        "connections_per_kind": _worst(one["connections"] / max(one["kinds_watched"], 1) for one in idle.values()),
        # Of few waits it says more about what all of them share.
        "kb_per_wait": beyond(rows[max(compared)], baseline[max(compared)]) if compared else None,
        "p99_s": _worst(row["finish"]["p99_s"] for row in rows.values() if "finish" in row),
    } | {key: _worst(one[key] for one in phases if key in one) for key in ("blocked_ms", "blocked_without_gc_ms")}
    return {
        name: {"goal": goal, "measured": measured[name], "met": _met(measured[name], goal)}
        for name, goal in GOALS.items()
    }


def _worst(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _met(measured: float | None, goal: float) -> bool | None:
    return None if measured is None else measured <= goal


def rounded(value: Any) -> Any:
    """Four digits that count: no measurement here has more."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
