"""The arithmetic of a Deployment: how many pods each of its ReplicaSets is to have next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Object = dict[str, Any]
Sizes = dict[str, int]
"""The wanted number of pods by the name of the ReplicaSet; those that are not named keep theirs."""


@dataclass(frozen=True)
class ReplicaSetSize:
    name: str
    wanted: int
    """Its ``spec.replicas``."""
    active: int = 0
    """Pods that it still has, from its status."""
    ready_long_enough: int = 0
    largest_total: int = 0
    """Of all ReplicaSets together when it was last scaled; from its annotation ``max-replicas``, 0 without one."""

    @property
    def available(self) -> int:
        """Its status may lag behind: what it is about to delete does not count any more."""
        return min(self.wanted, self.ready_long_enough)

    @property
    def total(self) -> int:
        """Differs from Kubernetes: pods that it is about to delete still count."""
        return max(self.wanted, self.active)


def resolved(value: int | str, replicas: int, *, rounds_up: bool) -> int:
    """A number, or a percentage of the replicas."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * replicas
    return -(-share // 100) if rounds_up else share // 100


def _bounds(spec: Mapping[str, Any]) -> tuple[int, int]:
    """``maxSurge`` rounded up and ``maxUnavailable`` rounded down; were both 0, nothing could ever move."""
    update = (spec.get("strategy") or {}).get("rollingUpdate")
    if update is None:
        return 0, 0
    surge = resolved(update["maxSurge"], spec["replicas"], rounds_up=True)
    unavailable = resolved(update["maxUnavailable"], spec["replicas"], rounds_up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def max_surge(spec: Mapping[str, Any]) -> int:
    return _bounds(spec)[0]


def max_unavailable(spec: Mapping[str, Any]) -> int:
    return min(_bounds(spec)[1], int(spec["replicas"]))


def size_of_new(spec: Mapping[str, Any], old: Sequence[ReplicaSetSize], new: ReplicaSetSize) -> int:
    """What the new ReplicaSet may have while the old ones have theirs."""
    replicas = int(spec["replicas"])
    if new.wanted >= replicas or not is_rolling(spec):
        return replicas
    room = replicas + max_surge(spec) - sum(one.total for one in (*old, new))
    return min(replicas, new.wanted + max(0, room))


def is_rolling(spec: Mapping[str, Any]) -> bool:
    return bool(spec["strategy"]["type"] == "RollingUpdate")


def sizes_of_old(spec: Mapping[str, Any], old: Sequence[ReplicaSetSize], new: ReplicaSetSize) -> Sizes:
    """First what is not available goes, then as many of the others as the new pods make up for; the oldest first."""
    smallest = int(spec["replicas"]) - max_unavailable(spec)
    pending = new.wanted - new.available
    surplus = sum(one.wanted for one in (*old, new)) - smallest - pending
    sizes: Sizes = {}
    for one in old:
        cut = min(one.wanted - one.available, max(0, surplus))
        if cut:
            sizes[one.name] = one.wanted - cut
            surplus -= cut
    spare = sum(one.available for one in (*old, new)) - smallest
    for one in old:
        left = sizes.get(one.name, one.wanted)
        cut = min(left, max(0, spare))
        if cut:
            sizes[one.name] = left - cut
            spare -= cut
    return sizes


def proportional(spec: Mapping[str, Any], active: Sequence[ReplicaSetSize], total_before: int) -> Sizes:
    """In the middle of a rollout each gets its share of a change of ``spec.replicas``; ``active`` is newest first.

    ``total_before`` stands for the total of those that do not say at which one they were scaled.
    """
    replicas = int(spec["replicas"])
    allowed = replicas + max_surge(spec) if replicas else 0
    to_add = allowed - sum(one.wanted for one in active)
    if not to_add:
        return {}
    # What is left over by rounding goes to the largest; of two as large the newer grows and the older shrinks.
    ordered = sorted(active if to_add > 0 else reversed(active), key=lambda one: -one.wanted)
    added, sizes = 0, {}
    for one in ordered:
        share = _share(one, allowed, to_add - added, total_before)
        sizes[one.name] = one.wanted + share
        added += share
    sizes[ordered[0].name] = max(0, sizes[ordered[0].name] + to_add - added)
    return sizes


def _share(one: ReplicaSetSize, allowed: int, left: int, total_before: int) -> int:
    before = one.largest_total or total_before
    if not left or not before or not one.wanted:
        return 0
    share = _rounded(Fraction(one.wanted * allowed, before)) - one.wanted
    return min(share, left) if left > 0 else max(share, left)


def _rounded(value: Fraction) -> int:
    """Halves away from zero."""
    return int(value + Fraction(1, 2))
