"""Conditions as ``batch/v1`` Jobs keep them: each stays at its place in the list. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import timestamp


def true_condition(status: Mapping[str, Any], type_: str) -> dict[str, Any] | None:
    for condition in status.get("conditions", ()):
        if condition["type"] == type_ and condition["status"] == "True":
            found: dict[str, Any] = condition
            return found
    return None


def is_true(status: Mapping[str, Any], type_: str) -> bool:
    return true_condition(status, type_) is not None


def set_condition(
    status: dict[str, Any], type_: str, reason: str, message: str, now: datetime, *, value: str = "True"
) -> None:
    moment = timestamp(now)
    made = {
        "type": type_,
        "status": value,
        "reason": reason,
        "message": message,
        "lastProbeTime": moment,
        "lastTransitionTime": moment,
    }
    conditions = status.setdefault("conditions", [])
    for place, old in enumerate(conditions):
        if old["type"] == type_:
            conditions[place] = made
            return
    conditions.append(made)
