"""Which pods of a ReplicaSet count, since when they are ready, and which are the first to go. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cmp_to_key
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp, seconds_left
from airflow_llmtune.controlplane.pods import is_ready, phase

Object = dict[str, Any]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_NANOSECONDS = 10**9


def seconds_until_available(pod: Mapping[str, Any], min_ready_seconds: int, now: datetime) -> float | None:
    """0 when it is available; None while it is not even ready."""
    if not is_ready(pod):
        return None
    if not min_ready_seconds:
        return 0.0
    # Kubernetes' timestamps have whole seconds: a pod counts once the last of them is over.
    left = seconds_left(_ready_since(pod), min_ready_seconds, now)
    return max(0.0, left)


def available(pods: Iterable[Mapping[str, Any]], min_ready_seconds: int, now: datetime) -> int:
    return sum(seconds_until_available(pod, min_ready_seconds, now) == 0 for pod in pods)


def next_to_become_available(pods: Iterable[Mapping[str, Any]], min_ready_seconds: int, now: datetime) -> float | None:
    """In so many seconds; None when time alone changes nothing."""
    waits = (seconds_until_available(pod, min_ready_seconds, now) for pod in pods)
    return min((wait for wait in waits if wait), default=None)


def first_to_go(pods: Sequence[Object], count: int, now: datetime) -> list[Object]:
    """As Kubernetes ranks them, without the ranks of nodes: there is one node only."""

    def order(one: Object, other: Object) -> int:
        mine, theirs = _rank(one), _rank(other)
        if mine != theirs:
            return -1 if mine < theirs else 1
        return _compare_times(one, other, now)

    return sorted(pods, key=cmp_to_key(order))[:count]


def _rank(pod: Object) -> tuple[int, ...]:
    """Unassigned, pending, not ready, cheap to delete: the lowest goes first."""
    return (int("nodeName" in pod["spec"]), _PHASES.get(phase(pod), 0), int(is_ready(pod)), _cost(pod))


def _cost(pod: Object) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _compare_times(one: Object, other: Object, now: datetime) -> int:
    if is_ready(one):
        difference = _magnitude(_ready_since(one), now) - _magnitude(_ready_since(other), now)
        if _ready_since(one) != _ready_since(other):
            return difference or _by_uid(one, other)
    restarts = _most_restarts(other) - _most_restarts(one)
    if restarts:
        return restarts
    made, others = (pod["metadata"]["creationTimestamp"] for pod in (one, other))
    if made == others:
        return 0
    return _magnitude(made, now) - _magnitude(others, now) or _by_uid(one, other)


def _magnitude(since: str, now: datetime) -> int:
    """Of an age: pods of about the same age are drawn by lot, so that not always the newest goes."""
    age = int((now - parse_timestamp(since)).total_seconds() * _NANOSECONDS)
    return int(math.log2(age)) if age > 0 else -1


def _by_uid(one: Object, other: Object) -> int:
    return -1 if one["metadata"]["uid"] < other["metadata"]["uid"] else 1


def _ready_since(pod: Mapping[str, Any]) -> str:
    (ready,) = (one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    # A status that somebody wrote by hand may lack it.
    return str(ready.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])


def _most_restarts(pod: Object) -> int:
    return max((one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses", ())), default=0)
