"""What all kinds share: owners, object names and labels, and outcomes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeGuard

__all__ = [
    "ATTEMPT_LABEL",
    "DELIVERED_ANNOTATION",
    "EPOCH_ANNOTATION",
    "FINGERPRINT_ANNOTATION",
    "IDENTITY_LABEL",
    "MAX_LABEL_LENGTH",
    "MAX_NAME_LENGTH",
    "ON_KILL_ANNOTATION",
    "OWNER_ANNOTATION",
    "SETTLED_LABEL",
    "SITE_ANNOTATION",
    "TASK_ANNOTATION",
    "WAITED_FOR",
    "Outcome",
    "Phase",
    "ResourceKind",
    "condition",
    "finite",
    "has_our_name",
    "identity",
    "identity_selector",
    "is_plain",
    "is_waited_for",
    "metadata",
    "object_name",
    "owner_labels",
    "path",
    "text_of",
    "whole",
]

IDENTITY_LABEL = "airflow-llmtune/identity"
ATTEMPT_LABEL = "airflow-llmtune/attempt"
# The try of the task that answers for the object now, by Airflow's id; an adopting try writes itself here.
OWNER_ANNOTATION = "airflow-llmtune/owner"
# Between two clears by a human.
EPOCH_ANNOTATION = "airflow-llmtune/epoch"
# What was asked for.
FINGERPRINT_ANNOTATION = "airflow-llmtune/fingerprint"
# Labels hold no more than 63 characters of a name; here the task's names are whole.
TASK_ANNOTATION = "airflow-llmtune/task"
# The Airflow that it belongs to.
SITE_ANNOTATION = "airflow-llmtune/site"
# What becomes of it when its task is ended.
ON_KILL_ANNOTATION = "airflow-llmtune/on-kill"
# Its result went to a task; a later run of that task starts afresh.
DELIVERED_ANNOTATION = "airflow-llmtune/delivered"
# Nobody waits for it any more, so no triggerer needs to list it.
SETTLED_LABEL = "airflow-llmtune/settled"
# What this provider made and somebody may wait for.
WAITED_FOR = f"{IDENTITY_LABEL},!{SETTLED_LABEL}"

# Katib refuses longer Experiment names; with its suffixes (`-<8 characters>` for a trial, `-master-0` for its
# pod; `-bayesianoptimization` for a service) 40 stays below the 63 of a DNS label.
MAX_NAME_LENGTH = 40
MAX_LABEL_LENGTH = 63
_MAX_MESSAGE_LENGTH = 1000
# What ends a text for the system, and half of a character.
_UNPASSABLE = r"[\0\ud800-\udfff]"

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


class ResourceKind(NamedTuple):
    group: str
    version: str
    kind: str
    plural: str
    # The API server refuses an object with unknown fields; else it drops them without a word.
    strict: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str | None = None) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        collection = f"{root}/namespaces/{namespace}/{self.plural}"
        return f"{collection}/{name}" if name else collection


# --- who owns an object -------------------------------------------------------------------------------------


def identity(dag_id: str, task_id: str, run_id: str, map_index: int) -> str:
    """16 hex digits that stand for one task instance, whatever its try."""
    # JSON keeps ("a", "b-c") and ("a-b", "c") apart.
    return _digest(json.dumps([dag_id, task_id, run_id, map_index]))[:16]


def identity_selector(dag_id: str, task_id: str, run_id: str, map_index: int) -> str:
    return f"{IDENTITY_LABEL}={identity(dag_id, task_id, run_id, map_index)}"


def is_waited_for(obj: Mapping[str, Any]) -> bool:
    """Tell whether the selector ``WAITED_FOR`` finds the object."""
    labels = path(obj, "metadata", "labels") or {}
    return IDENTITY_LABEL in labels and SETTLED_LABEL not in labels


def object_name(dag_id: str, task_id: str, run_id: str, map_index: int, attempt: int) -> str:
    """The same task instance and attempt give the same name, so that a repeated create finds its object."""
    suffix = f"-{identity(dag_id, task_id, run_id, map_index)[:8]}-{attempt}"
    return _readable(dag_id, task_id, MAX_NAME_LENGTH - len(suffix)) + suffix


def has_our_name(obj: Mapping[str, Any], dag_id: str, task_id: str, run_id: str, map_index: int) -> bool:
    """Tell whether it is an attempt of that task instance; somebody's copy has all of its labels, but not its name."""
    number = path(obj, "metadata", "labels", ATTEMPT_LABEL) or ""
    return number.isdecimal() and obj["metadata"]["name"] == object_name(
        dag_id, task_id, run_id, map_index, int(number)
    )


def owner_labels(dag_id: str, task_id: str, run_id: str, map_index: int, attempt: int) -> dict[str, str]:
    """``map_index`` is there for mapped tasks only, as in the cncf provider: "-1" is no valid label value."""
    labels = {
        IDENTITY_LABEL: identity(dag_id, task_id, run_id, map_index),
        ATTEMPT_LABEL: str(attempt),
        "dag_id": _label_value(dag_id),
        "task_id": _label_value(task_id),
        "run_id": _label_value(run_id),
    }
    return labels if map_index < 0 else {**labels, "map_index": str(map_index)}


def metadata(name: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    if labels:
        meta["labels"] = dict(labels)
    if annotations:
        meta["annotations"] = dict(annotations)
    return meta


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _readable(dag_id: str, task_id: str, room: int) -> str:
    # A task group repeats in front of each of its tasks; the task's own name says more in the room there is.
    dag, task = _slug(dag_id), _slug(task_id.rpartition(".")[2])
    if len(dag) + len(task) + 1 > room:
        half = (room - 1) // 2
        dag = dag[: max(half, room - 1 - len(task))]
        task = task[: room - 1 - len(dag)]
    slug = "-".join(part for part in (dag.strip("-"), task.strip("-")) if part)
    return slug if slug[:1].isalpha() else f"t{slug}"[:room].strip("-")


def _label_value(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")
    if safe == text and len(safe) <= MAX_LABEL_LENGTH:
        return safe
    # Two different run ids must not end up in the same label.
    short = safe[: MAX_LABEL_LENGTH - 9].rstrip("_.-")
    return f"{short}-{_digest(text)[:8]}" if short else _digest(text)[:8]


# --- reading objects ----------------------------------------------------------------------------------------


def path(obj: Any, *keys: str) -> Any:
    """The value below ``keys``, or None as soon as a level is missing: statuses appear bit by bit."""
    for key in keys:
        if not isinstance(obj, Mapping):
            return None
        obj = obj.get(key)
    return obj


def condition(obj: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    """The condition of that type if it holds; a type that is listed with status "False" does not."""
    for entry in path(obj, "status", "conditions") or []:
        if entry.get("type") == type_ and entry.get("status") == "True":
            return dict(entry)
    return None


def finite(value: Any) -> float | None:
    """The number behind a text or a number; None when there is none, or it is NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and "_" in value:  # Python reads "1_000"; Katib does not
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole(value: Any) -> int | None:
    """The integer behind a text or a number, exact also where a float would round."""
    number = finite(value)
    if number is None or not number.is_integer():
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    return value if isinstance(value, int) else int(number)


def is_plain(value: Any) -> TypeGuard[str | float | bool]:
    """Whether it is a boolean, a finite number, or a text that a process can be given."""
    if isinstance(value, str):
        return re.search(_UNPASSABLE, value) is None
    return isinstance(value, bool) or (isinstance(value, int | float) and finite(value) is not None)


def text_of(value: str | float | bool) -> str:
    """The text in which a scalar travels to Katib and to the trainer's flags."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


class Outcome(NamedTuple):
    phase: Phase
    reason: str = ""
    message: str = ""

    @property
    def finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @classmethod
    def of(cls, phase: Phase, held: Mapping[str, Any] | None) -> Outcome:
        held = held or {}
        return cls(phase, held.get("reason") or "", held.get("message") or "")

    def to_event(self, name: str, namespace: str, uid: str) -> dict[str, Any]:
        message = self.message
        if len(message) > _MAX_MESSAGE_LENGTH:  # an event is a database row, not a log
            message = message[: _MAX_MESSAGE_LENGTH - 1] + "…"
        return {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "phase": self.phase,
            "reason": self.reason,
            "message": message,
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Outcome:
        return cls(event["phase"], event["reason"], event["message"])


# --- checking input -----------------------------------------------------------------------------------------
