"""Whose an object is: what a task instance writes on the objects it creates, and how it finds them again. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from airflow_llmtune.resources.meta import (
    ATTEMPT_LABEL,
    DELIVERED_ANNOTATION,
    OWNER_ANNOTATION,
    identity_selector,
    object_name,
    owner_labels,
    path,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["UNUSABLE", "Claim", "attempt_of"]

FINGERPRINT_ANNOTATION = "airflow-llmtune/fingerprint"
# Delivered, and found to hold no result: whoever comes next, retry or clear, starts another attempt.
UNUSABLE = "unusable"


class Claim(NamedTuple):
    """
    One try of a task instance, as far as its objects are concerned.

    ``owner`` is the try itself. ``epoch`` names the time between two clears of one DAG run: a retry leaves it as it
    is, a clear by a human moves it (``clear_number``, and ``max_tries`` beyond all tries so far), and another run of
    the same name has another one.
    """

    who: tuple[str, str, str, int]
    owner: str
    run: str
    epoch: str

    @classmethod
    def of(cls, context: Context) -> Self:
        ti, dag_run = context["ti"], context["dag_run"]
        map_index = -1 if ti.map_index is None else ti.map_index
        run = dag_run.run_after.isoformat()
        return cls(
            who=(ti.dag_id, ti.task_id, ti.run_id, map_index),
            owner=str(ti.id),
            run=run,
            epoch=f"{run}/{dag_run.clear_number}/{ti.max_tries}",
        )

    @property
    def selector(self) -> str:
        return identity_selector(*self.who)

    def name(self, attempt: int) -> str:
        return object_name(*self.who, attempt)

    def labels(self, attempt: int) -> dict[str, str]:
        return owner_labels(*self.who, attempt)

    def annotations(self, manifest: Mapping[str, Any]) -> dict[str, str]:
        return {OWNER_ANNOTATION: self.owner, FINGERPRINT_ANNOTATION: self.fingerprint(manifest)}

    def fingerprint(self, manifest: Mapping[str, Any]) -> str:
        """Tell apart what was asked for, and by which run; the same after a retry with the same arguments."""
        text = json.dumps([self.run, manifest["spec"]], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def owns(self, obj: Mapping[str, Any]) -> bool:
        return _annotation(obj, OWNER_ANNOTATION) == self.owner

    def asked_for(self, obj: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
        """Tell whether the object is what the task asks for now, not what it asked for before it was edited."""
        return _annotation(obj, FINGERPRINT_ANNOTATION) == self.fingerprint(manifest)

    def may_use_result(self, obj: Mapping[str, Any]) -> bool:
        """
        Tell whether a finished object's result is still to be returned.

        One that was delivered in this epoch is: the task would not run again had Airflow stored the result.
        """
        return _annotation(obj, DELIVERED_ANNOTATION) in {None, self.epoch}


def attempt_of(obj: Mapping[str, Any]) -> int:
    return int(obj["metadata"]["labels"][ATTEMPT_LABEL])


def _annotation(obj: Mapping[str, Any], key: str) -> str | None:
    value: str | None = path(obj, "metadata", "annotations", key)
    return value
