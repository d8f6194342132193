"""How far a tuning is, while it runs: of an Experiment's status and of its Trials' changes, in whatever order. Pure.

A triggerer holds one of these for each tuning that waits, thousands of them, so each keeps little.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.resources.experiment import read_counts, read_optimum, read_outcome
from airflow_llmtune.resources.meta import finite, path, whole
from airflow_llmtune.resources.trial import read_trial

__all__ = [
    "EXPERIMENT_LABEL",
    "MAX_BYTES",
    "RECENT_TRIALS",
    "Best",
    "FinishedTrial",
    "Snapshot",
    "TuningProgress",
    "experiment_of",
    "read_end",
    "read_finished",
    "read_snapshot",
]

JSON = dict[str, Any]
# Katib writes it on each Trial.
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
RECENT_TRIALS = 5
# No `to_xcom` is longer, as JSON: six sets of parameters, with the names of their trials (each up to 253).
MAX_BYTES = 8_000
_PARAMETERS_BYTES = 800
_TEXT_LENGTH = 100

_STATES = {
    "Succeeded": "succeeded",
    "Failed": "failed",
    "EarlyStopped": "early stopped",
    "MetricsUnavailable": "metrics unavailable",
    "Killed": "killed",
}
_FINISHED_LISTS = (
    "succeededTrialList",
    "failedTrialList",
    "killedTrialList",
    "earlyStoppedTrialList",
    "metricsUnavailableTrialList",
)
# By which the better value is the smaller one.
_SIGNS = {"minimize": 1.0, "maximize": -1.0}


# --- what is read ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    name: str
    experiment: str
    state: str
    value: float | None
    parameters: Mapping[str, str]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Best:
    value: float
    trial: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an Experiment's status says; ``max_trials`` is None where there is no limit."""

    finished: tuple[str, ...]
    counts: Mapping[str, int]
    max_trials: int | None
    metric: str
    direction: str
    best: Best | None
    ended: bool


def experiment_of(trial: Mapping[str, Any]) -> str:
    return path(trial, "metadata", "labels", EXPERIMENT_LABEL) or ""


def read_finished(obj: Mapping[str, Any]) -> FinishedTrial | None:
    """The trial, or None while it runs. Only one that was not lost has a value."""
    read = read_trial(obj)
    if not read["finished"]:
        return None
    metric = path(obj, "spec", "objective", "objectiveMetricName")
    return FinishedTrial(
        name=sys.intern(read["name"]),
        experiment=experiment_of(obj),
        state=_STATES[read["phase"]],
        value=None if read["failed"] else read["metrics"].get(metric),
        parameters=_short(read["parameters"]),
        seconds=finite(read["seconds"]),
    )


def read_snapshot(obj: Mapping[str, Any]) -> Snapshot:
    lists = (path(obj, "status", field) or [] for field in _FINISHED_LISTS)
    optimum = read_optimum(obj)
    return Snapshot(
        # Many tunings share few metrics; a trial's name is in the Snapshot and among those that were told.
        finished=tuple(sys.intern(name) for names in lists for name in names),
        counts=read_counts(obj),
        max_trials=whole(path(obj, "spec", "maxTrialCount")),
        metric=sys.intern(_cut(path(obj, "spec", "objective", "objectiveMetricName") or "")),
        direction=sys.intern(path(obj, "spec", "objective", "type") or ""),
        best=None if optimum is None else Best(optimum.objective, optimum.trial, _short(optimum.assignments)),
        ended=read_outcome(obj).finished,
    )


def _short(parameters: Mapping[str, str]) -> dict[str, str]:
    """As many as have room, long texts cut; the others are only counted."""
    kept: dict[str, str] = {}
    room = _PARAMETERS_BYTES
    for name, text in parameters.items():
        size = len(json.dumps({name: _cut(text)}))
        if size <= room:
            kept[sys.intern(name)] = _cut(text)
            room -= size
    left_out = len(parameters) - len(kept)
    return {**kept, "…": f"{left_out} more"} if left_out else kept


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"


# --- what is told ------------------------------------------------------------------------------------------------


class TuningProgress:
    """
    Follows one wait for an Experiment.

    Its status and its Trials come from two streams. Either may be ahead, say a thing twice, or leave things out.
    """

    __slots__ = ("_best", "_late", "_missing", "_recent", "_snapshot", "_told")

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        # Names; `_late` are those of which only a summary told so far, `_missing` those of which nothing did.
        self._told: set[str] = set()
        self._late: tuple[str, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._recent: tuple[FinishedTrial, ...] = ()
        self._best: Best | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there is more to tell than that nothing has finished."""
        return bool(self._told)

    def update(self, snapshot: Snapshot) -> str | None:
        """Return a summary at the start, and when trials have finished that no line told; else None."""
        before, self._snapshot = self._snapshot, snapshot
        self._keep_best()
        untold = set(snapshot.finished) - self._told
        if before is None:
            self._told |= untold
            return self._summary(snapshot)
        # A trial's own change may come a moment after the status that counts it, but not after the next trial's.
        gap = untold.intersection(self._missing if len(snapshot.finished) != len(before.finished) else ())
        if snapshot.ended:
            gap = untold
        self._missing = tuple(untold - gap)
        self._told |= gap
        self._late += tuple(gap)
        return self._summary(snapshot) if gap else None

    def add(self, trial: FinishedTrial) -> str | None:
        """Return the line about a trial that has finished; None when there was one, or a summary at the start."""
        if trial.name in self._told and trial.name not in self._late:
            # Its metrics may have come since.
            self._recent = tuple(trial if one.name == trial.name else one for one in self._recent)
            self._keep_best()
            return None
        self._recent = (trial, *self._recent)[:RECENT_TRIALS]
        self._told.add(trial.name)
        self._late = tuple(name for name in self._late if name != trial.name)
        self._keep_best()
        # Before the first status there is no name of the metric either; that summary counts the trial.
        return None if self._snapshot is None else self._line(trial, self._snapshot)

    def to_xcom(self) -> JSON:
        """Return the newest state in JSON: finite numbers, and no more than ``MAX_BYTES``."""
        snapshot, best = self._snapshot, self._best
        if snapshot is None:
            return {"counts": {}, "max_trials": None, "best": None, "recent": []}
        told = best and {
            "metric": snapshot.metric,
            "value": best.value,
            "trial": best.trial,
            "parameters": dict(best.parameters),
        }
        recent = [
            {
                "name": trial.name,
                "state": trial.state,
                "value": trial.value,
                "parameters": dict(trial.parameters),
                "seconds": trial.seconds,
            }
            for trial in self._recent
        ]
        return {"counts": self._counts(snapshot), "max_trials": snapshot.max_trials, "best": told, "recent": recent}

    def _keep_best(self) -> None:
        if self._snapshot is None:
            return
        sign = _SIGNS.get(self._snapshot.direction)
        found = [self._snapshot.best, self._best]
        if sign is not None:
            found += [
                Best(trial.value, trial.name, trial.parameters) for trial in self._recent if trial.value is not None
            ]
        # Of equal ones the first: Katib's own.
        self._best = min(
            (best for best in found if best is not None), key=lambda best: (sign or 0.0) * best.value, default=None
        )

    def _counts(self, snapshot: Snapshot) -> dict[str, int]:
        """Katib's counts, and the trials that have finished since."""
        counts = dict(snapshot.counts)
        for trial in self._recent:
            if trial.name not in snapshot.finished:
                counts[trial.state.replace(" ", "_")] += 1
                counts["running"] = max(counts["running"] - 1, 0)
        return {**counts, "trials": max(counts["trials"], _done(counts) + counts["running"] + counts["pending"])}

    def _summary(self, snapshot: Snapshot) -> str:
        counts = self._counts(snapshot)
        total = "unbounded" if snapshot.max_trials is None else snapshot.max_trials
        parts = [f"{_done(counts)}/{total} trials done, {counts['running']} running"]
        parts += [
            f"{counts[key]} {state}"
            for state in ("failed", "metrics unavailable", "early stopped", "killed")
            if counts[key := state.replace(" ", "_")]
        ]
        if self._best is not None:
            parts.append(f"best {snapshot.metric}={self._best.value:.6g} (trial {self._best.trial})")
        return ", ".join(parts)

    def _line(self, trial: FinishedTrial, snapshot: Snapshot) -> str:
        number = len(self._told)
        total = "" if snapshot.max_trials is None else f"/{snapshot.max_trials}"
        parts = [f"trial {number}{total} {trial.state}"]
        if trial.value is not None:
            parts.append(f"{snapshot.metric}={trial.value:.6g}")
        if self._best is not None:
            parts.append(f"best={self._best.value:.6g}")
        return f"{' '.join(parts)} (trial {trial.name})"


def read_end(obj: Mapping[str, Any], trials: Iterable[Mapping[str, Any]]) -> JSON:
    """The last XCom value, of an Experiment that has finished."""
    progress = TuningProgress()
    for trial in sorted(trials, key=_ended_at):
        if (finished := read_finished(trial)) is not None:
            progress.add(finished)
    progress.update(read_snapshot(obj))
    return progress.to_xcom()


def _ended_at(trial: Mapping[str, Any]) -> str:
    # One that was stopped early has no completion time.
    return path(trial, "status", "completionTime") or path(trial, "metadata", "creationTimestamp") or ""


def _done(counts: Mapping[str, int]) -> int:
    return sum(counts[state.replace(" ", "_")] for state in _STATES.values())
