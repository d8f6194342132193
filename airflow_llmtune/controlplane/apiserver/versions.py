"""One object in several versions: here they differ in nothing but ``apiVersion``, as with conversion ``None``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind
    from airflow_llmtune.controlplane.store import Entry


def shown_as(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """The object in the version it was asked for."""
    if kind.converts:
        obj["apiVersion"] = kind.api_version
    return obj


def raw_as(kind: Kind, entry: Entry) -> bytes:
    """The stored bytes in the version they were asked for."""
    if not kind.converts:
        return entry.raw
    return json.dumps(shown_as(kind, entry.copy()), separators=(",", ":"), ensure_ascii=False).encode()
