"""Status conditions with Katib's mechanics: a real change moves the condition to the end of the list.

The order therefore tells which came last, and ``status`` must be looked at: after completion ``Running``
stays in the list as ``False``.
"""

from __future__ import annotations

from typing import Any


def find_condition(obj: dict[str, Any], type_: str) -> dict[str, Any] | None:
    for condition in obj.get("status", {}).get("conditions", ()):
        if condition["type"] == type_:
            found: dict[str, Any] = condition
            return found
    return None


def has_condition(obj: dict[str, Any], type_: str) -> bool:
    """Whether the condition is there and its status is ``"True"``."""
    condition = find_condition(obj, type_)
    return condition is not None and condition["status"] == "True"


def set_condition(
    obj: dict[str, Any], type_: str, reason: str, message: str, now: str, *, status: str = "True"
) -> None:
    """Nothing changes, not even message and time, when status and reason are the same as before."""
    old = find_condition(obj, type_)
    if old is not None and (old["status"], old.get("reason", "")) == (status, reason):
        return
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    if old is not None:
        conditions.remove(old)
    same_status = old is not None and old["status"] == status
    conditions.append(
        {
            "type": type_,
            "status": status,
            "reason": reason,
            "message": message,
            "lastUpdateTime": now,
            "lastTransitionTime": old.get("lastTransitionTime", now) if old and same_status else now,
        }
    )


def remove_condition(obj: dict[str, Any], type_: str) -> None:
    conditions = obj.get("status", {}).get("conditions", [])
    conditions[:] = [condition for condition in conditions if condition["type"] != type_]


def set_false(obj: dict[str, Any], type_: str, now: str) -> None:
    """Flip a condition that is there to ``False``, keeping its reason and message."""
    old = find_condition(obj, type_)
    if old is not None:
        set_condition(obj, type_, old.get("reason", ""), old.get("message", ""), now, status="False")
