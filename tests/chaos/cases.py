"""
What has to become of a task, its Experiments and its XCom, whatever happens to it: the definitions, as data.

``tests/chaos`` makes each of them happen on a real Airflow and compares; ``docs/reference/outcomes.md`` is written from
them. Standard library only: DAG files and the docs import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

__all__ = ["FAULTS", "KILLS", "PHASES", "TARGETS", "Case", "Fault", "Kill", "Outcome", "Phase", "Target"]

Target = Literal["worker", "triggerer", "scheduler", "api-server", "control plane", "trial pod"]
Fault = Literal["SIGKILL", "SIGSTOP", "restart"]
Phase = Literal["before create", "between create and defer", "deferred", "while completing"]

TARGETS: tuple[Target, ...] = ("worker", "triggerer", "scheduler", "api-server", "control plane", "trial pod")
# SIGSTOP for 40 seconds; a restart is SIGTERM, and a start where the target is a service.
FAULTS: tuple[Fault, ...] = ("SIGKILL", "SIGSTOP", "restart")
PHASES: tuple[Phase, ...] = ("before create", "between create and defer", "deferred", "while completing")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a DAG author is told: in words, of the Experiment, of the task and of its XCom."""

    experiment: str
    task: str
    xcom: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One thing that happens to one run, and what the harness then counts.

    :param state: the task's, at the end; ``removed`` when the run itself is gone.
    :param created: how many Experiments there ever were, told apart by their uid.
    :param left: how those ended that are still there, each by its last condition, sorted.
    :param results: how many times the task downstream was given a result.
    """

    name: str
    outcome: Outcome
    state: str = "success"
    created: int = 1
    left: tuple[str, ...] = ("Succeeded",)
    results: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill(Case):
    """A process dies, hangs or is started anew in one phase of a task's life; the task has retries."""

    target: Target
    fault: Fault
    phase: Phase


_RESULT = "the result"
_UNTOUCHED = Outcome("untouched", "goes on", _RESULT)
_NEXT_TRY = "a new try; an older one that wakes up touches nothing"
_OF_WORKER = {
    "before create": "created once, by whichever try is first",
    "between create and defer": "goes on; the next try adopts it",
    "while completing": "kept; the next try reads its result",
}


def _outcome(target: Target, fault: Fault, phase: Phase) -> Outcome:
    has_pod = phase in {"between create and defer", "deferred"}
    match target:
        case "worker" if phase != "deferred":
            return Outcome(_OF_WORKER[phase], _NEXT_TRY, _RESULT)
        case "triggerer" if phase == "deferred":
            return Outcome("goes on", "waits on: another triggerer has it, or the same one again", _RESULT)
        case "scheduler" | "api-server" if phase != "deferred":
            task = "goes on; a worker that cannot report ends, then a new try goes on"
            return Outcome("never a second one", task, _RESULT)
        case "control plane":
            return Outcome("goes on with its data", "waits for it, for `api_retry_timeout` at most", _RESULT)
        case "trial pod" if has_pod and fault == "SIGSTOP":
            return Outcome("goes on when the trial does", "waits on", _RESULT)
        case "trial pod" if has_pod:
            return Outcome("goes on with another trial, as far as `maxFailedTrialCount` allows", "waits on", _RESULT)
    return _UNTOUCHED


def _kills() -> Iterator[Kill]:
    for target, fault, phase in product(TARGETS, FAULTS, PHASES):
        name = f"{target}, {fault}, {phase}"
        yield Kill(name=name, outcome=_outcome(target, fault, phase), target=target, fault=fault, phase=phase)


KILLS: tuple[Kill, ...] = tuple(_kills())
