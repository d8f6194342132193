"""Conditions as ``metav1.Condition``: each stays at its place, and its time moves only with its status. Pure."""

from __future__ import annotations

from typing import Any

Condition = dict[str, Any]


def condition(type_: str, reason: str, message: str, *, status: str = "True") -> Condition:
    """One without a time, which ``put`` fills in."""
    return {"type": type_, "status": status, "reason": reason, "message": message}


def find(status: dict[str, Any], type_: str) -> Condition | None:
    return next((one for one in status.get("conditions", ()) if one["type"] == type_), None)


def is_true(status: dict[str, Any], type_: str) -> bool:
    found = find(status, type_)
    return found is not None and found["status"] == "True"


def put(status: dict[str, Any], new: Condition, now: str) -> bool:
    """Whether anything changed."""
    old = find(status, new["type"])
    if old is None:
        status.setdefault("conditions", []).append({"lastTransitionTime": now, **new})
        return True
    before = dict(old)
    if old["status"] != new["status"]:
        old["lastTransitionTime"] = new.get("lastTransitionTime", now)
    old.update(status=new["status"], reason=new["reason"], message=new["message"])
    return old != before
