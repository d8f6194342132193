"""Events as we read them: what the cluster complained of, where no status tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path

__all__ = ["KIND", "WARNINGS", "read_complaints"]

KIND = ResourceKind("", "v1", "Event", "events")
WARNINGS = "type=Warning"

# Later ones repeat the cause in other words.
_MOST = 3
_MAX_MESSAGE_LENGTH = 600


def read_complaints(events: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """The latest different ones about an object and what was made for it: their names begin with its name and ``-``."""
    found: dict[str, str] = {}
    for event in sorted(events, key=_time):
        involved = event.get("involvedObject") or {}
        subject = involved.get("name") or ""
        if subject == name or subject.startswith(f"{name}-"):
            message = (event.get("message") or "").strip()[:_MAX_MESSAGE_LENGTH]
            text = f"{event.get('reason')}: {message}"
            # Of a cause that many pods have, the last one speaks.
            found.pop(text, None)
            found[text] = f"event of {involved.get('kind')} {subject}: {text}"
    return list(found.values())[-_MOST:]


def _time(event: Mapping[str, Any]) -> str:
    """RFC 3339 in UTC sorts as text."""
    seen = event.get("lastTimestamp") or path(event, "series", "lastObservedTime") or event.get("eventTime")
    return seen or path(event, "metadata", "creationTimestamp") or ""
