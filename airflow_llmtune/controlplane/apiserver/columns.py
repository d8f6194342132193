"""The columns of ``kubectl get``: how each cell is read, and which of them a kind has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp

Object = Mapping[str, Any]
Cell = str | int | float | bool | None
Reader = Callable[[Object, datetime], Cell]


@dataclass(frozen=True)
class Column:
    name: str
    read: Reader
    type: str = "string"
    priority: int = 0
    """1 for what only ``-o wide`` shows."""
    description: str = ""

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": "name" if self.name == "Name" else "",
            "description": self.description,
            "priority": self.priority,
        }


def human_duration(seconds: float) -> str:
    """Kubernetes' short form: two units at most, the second only while it still matters."""
    total = int(seconds)
    if total < 0:
        return "<invalid>" if total < -1 else "0s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def since(text: str | None, now: datetime) -> str:
    return human_duration((now - parse_timestamp(text)).total_seconds()) if text else "<unknown>"


def age(obj: Object, now: datetime) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def path(*steps: str, default: Cell = "") -> Reader:
    def read(obj: Object, now: datetime) -> Cell:  # noqa: ARG001  columns share one signature
        value: Any = obj
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else None
        return default if value is None else value

    return read


def last_condition(field: str) -> Reader:
    """Katib's and the training operator's way: the newest condition stands last."""

    def read(obj: Object, now: datetime) -> Cell:  # noqa: ARG001  columns share one signature
        conditions = obj.get("status", {}).get("conditions") or [{}]
        return str(conditions[-1].get(field, ""))

    return read


def condition_status(wanted: str) -> Reader:
    def read(obj: Object, now: datetime) -> Cell:  # noqa: ARG001  columns share one signature
        for one in obj.get("status", {}).get("conditions") or ():
            if one.get("type") == wanted:
                return str(one.get("status", ""))
        return ""

    return read


NAME = Column("Name", path("metadata", "name"))
AGE = Column("Age", age)
