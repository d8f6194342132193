"""Whose an object is: what a task instance writes on those it creates, and what it does with those it finds. Pure."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from airflow_llmtune.exceptions import StaleObjectError, SupersededError
from airflow_llmtune.resources.meta import (
    ATTEMPT_LABEL,
    DELIVERED_ANNOTATION,
    EPOCH_ANNOTATION,
    FINGERPRINT_ANNOTATION,
    OWNER_ANNOTATION,
    TASK_ANNOTATION,
    Outcome,
    has_our_name,
    identity_selector,
    object_name,
    owner_labels,
    path,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["ON_CLEAR", "ON_STALE", "UNUSABLE", "Adoption", "Claim", "Policy", "attempt_of", "decide", "fingerprint_of"]

JSON = Mapping[str, Any]
ON_STALE = ("restart", "adopt", "fail")
ON_CLEAR = ("restart", "adopt")
# Delivered, and found to hold no result: whoever comes next, retry or clear, starts another attempt.
UNUSABLE = "unusable"


class Claim(NamedTuple):
    """
    One try of a task instance, as far as its objects are concerned.

    ``owner`` is the try itself, by Airflow's id, which begins with the time at which the try was made. ``epoch`` names
    the time between two clears of this task by a human: a retry leaves it as it is, a clear moves ``max_tries`` beyond
    all tries so far. The run's ``clear_number`` is no part of it: it moves when any task of the run is cleared.
    """

    who: tuple[str, str, str, int]
    owner: str
    is_first: bool
    epoch: str

    @classmethod
    def of(cls, context: Context) -> Self:
        ti = context["ti"]
        return cls(
            who=(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index),
            owner=str(ti.id),
            is_first=ti.try_number == 1,
            epoch=f"{context['dag_run'].run_after.isoformat()}/{ti.max_tries}",
        )

    @property
    def selector(self) -> str:
        return identity_selector(*self.who)

    def name(self, attempt: int) -> str:
        return object_name(*self.who, attempt)

    def labels(self, attempt: int) -> dict[str, str]:
        return owner_labels(*self.who, attempt)

    @property
    def ownership(self) -> dict[str, str]:
        """The annotations that an adopting try writes anew."""
        return {OWNER_ANNOTATION: self.owner, EPOCH_ANNOTATION: self.epoch}

    def annotations(self, fingerprint: str) -> dict[str, str]:
        return {**self.ownership, FINGERPRINT_ANNOTATION: fingerprint, TASK_ANNOTATION: json.dumps(self.who)}

    def made(self, obj: JSON) -> bool:
        """Tell whether some try of this task made it."""
        return has_our_name(obj, *self.who)

    def owns(self, obj: JSON) -> bool:
        return _annotation(obj, OWNER_ANNOTATION) == self.owner

    def answers_for(self, obj: JSON) -> bool:
        """Tell whether this try is the one to decide what becomes of an object of this or an earlier one."""
        is_older = not self.is_first and _made_at(_annotation(obj, OWNER_ANNOTATION)) < _made_at(self.owner)
        return self.owns(obj) or is_older

    def check_not_superseded(self, obj: JSON) -> None:
        """
        Make sure that no newer try of this task instance has taken the object over.

        :raises SupersededError: one has.
        """
        if _made_at(_annotation(obj, OWNER_ANNOTATION)) > _made_at(self.owner):
            raise SupersededError(
                f"{obj['metadata']['name']} belongs to a newer try of this task; Airflow had given this one up. It is "
                f"left as it is"
            )


class Policy(NamedTuple):
    """
    What the task's author wants done with an object of an earlier try.

    ``uses_failed``: one that failed may hold a result all the same.
    """

    on_stale: str = "restart"
    on_clear: str = "restart"
    uses_failed: bool = False


class Adoption(NamedTuple):
    """``adopt`` the object, ``replace`` it, which ends it when it still runs, or go ``past`` it."""

    action: Literal["adopt", "replace", "past"]
    why: str = ""


def decide(claim: Claim, obj: JSON, outcome: Outcome, fingerprint: str, policy: Policy) -> Adoption:
    """
    Say what a new try does with the latest object of its task instance.

    :raises SupersededError: a newer try owns it.
    :raises StaleObjectError: it was made with other arguments, and ``on_stale`` is ``fail``.
    """
    if obj["metadata"].get("deletionTimestamp"):
        return Adoption("past", "it is being deleted")
    claim.check_not_superseded(obj)
    replaced: Literal["replace", "past"] = "past" if outcome.finished else "replace"
    if claim.is_first and not claim.owns(obj):
        return Adoption(replaced, "it is of a run of the same name that was deleted")
    if _annotation(obj, EPOCH_ANNOTATION) != claim.epoch and policy.on_clear == "restart":
        return Adoption(replaced, "the task was cleared since")
    if _annotation(obj, FINGERPRINT_ANNOTATION) != fingerprint and policy.on_stale != "adopt":
        if policy.on_stale == "fail":
            raise _stale(obj)
        return Adoption(replaced, "the arguments changed since")
    return _decide_by_outcome(claim, obj, outcome, policy)


def _decide_by_outcome(claim: Claim, obj: JSON, outcome: Outcome, policy: Policy) -> Adoption:
    if not outcome.finished:
        return Adoption("adopt")
    delivered = _annotation(obj, DELIVERED_ANNOTATION)
    if delivered == UNUSABLE or (outcome.phase == "Failed" and not policy.uses_failed):
        return Adoption("past", "it has failed")
    # One that was delivered in this epoch is to be delivered again: the task would not run, had Airflow stored it.
    may_use = delivered in {None, claim.epoch} or policy.on_clear == "adopt"
    return Adoption("adopt") if may_use else Adoption("past", "its result was delivered")


def _stale(obj: JSON) -> StaleObjectError:
    return StaleObjectError(
        f"{obj['metadata']['name']} was made by an earlier try with other arguments than the task has now. "
        f'Fix: undo the change, delete the object, or give `on_stale="restart"` or `on_stale="adopt"`'
    )


def fingerprint_of(asked_for: Any) -> str:
    """Tell apart what was asked for; the same after a retry with the same arguments."""
    text = json.dumps(asked_for, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def attempt_of(obj: JSON) -> int:
    return int(obj["metadata"]["labels"][ATTEMPT_LABEL])


def _made_at(owner: str | None) -> int:
    """Order tries by their ids, which are UUIDs of version 7: those of a run that was deleted come first."""
    try:
        return uuid.UUID(owner or "").int
    except ValueError:
        return 0


def _annotation(obj: JSON, key: str) -> str | None:
    value: str | None = path(obj, "metadata", "annotations", key)
    return value
