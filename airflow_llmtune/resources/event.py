"""Events as we read them: what the cluster complains of, where no status tells it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from airflow_llmtune.resources.cause import gist, lacks_claim
from airflow_llmtune.resources.meta import ResourceKind, path
from airflow_llmtune.resources.redaction import redacted

__all__ = ["KIND", "WARNINGS", "Complaint", "owners", "read_complaint", "read_complaints"]

KIND = ResourceKind("", "v1", "Event", "events")
WARNINGS = "type=Warning"

# Later ones repeat the cause in other words.
_MOST = 3
_MAX_MESSAGE_LENGTH = 600
# Two controllers wrote at once; each tries again within a moment.
_PASSING = "the object has been modified"
_MISSING = re.compile(r"not found|non-existent|does not exist|doesn't exist")
# Said of each pod on some clusters, or of each of our PyTorchJobs, whatever becomes of it.
_HARMLESS = ("DNSConfigForming", "SettedPodTemplateRestartPolicy")
# After these a wait looks at its pods; no others, or clusters that complain all the time would be asked all the time.
# A node, a machine that has to be bought for it, or a share of a quota may come after hours.
_OF_A_START = ("Failed", "FailedMount", "FailedAttachVolume", "InspectFailed", "ErrImageNeverPull")
# How the names end that we give (see `object_name`); looked for at each place, since a DAG's name may look like that.
_OURS = re.compile(r"(?=(-[0-9a-f]{8}-\d+)(?:-|$))")


class Complaint(NamedTuple):
    kind: str
    name: str
    reason: str
    message: str
    seen: str = ""
    """When it was said last, in RFC 3339: in UTC it sorts as text."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.message} ({self.reason}, {self.seen})"

    @property
    def is_of_a_start(self) -> bool:
        """Whether its pod may be one that cannot start."""
        return self.kind == "Pod" and (self.reason in _OF_A_START or lacks_claim(self.message))

    @property
    def missing_volume(self) -> str | None:
        """What a volume of the pod is made of, and is not there; the pod's status says nothing of it."""
        return self.message if self.reason == "FailedMount" and _MISSING.search(self.message) else None


def read_complaint(event: Mapping[str, Any]) -> Complaint | None:
    """None for what passes by itself at once, or says nothing."""
    involved = event.get("involvedObject") or {}
    message = redacted((event.get("message") or "").strip()[:_MAX_MESSAGE_LENGTH], ())
    if _PASSING in message or event.get("reason") in _HARMLESS or not involved.get("name"):
        return None
    return Complaint(involved.get("kind") or "", involved["name"], event.get("reason") or "", message, _time(event))


def owners(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Our objects to which a complaint may belong: the names of what is made for one begin with its name and ``-``."""
    complaint = read_complaint(event)
    return () if complaint is None else tuple(complaint.name[: end.end(1)] for end in _OURS.finditer(complaint.name))


def read_complaints(events: Iterable[Mapping[str, Any]], name: str, *, below: bool = True) -> list[str]:
    """The latest different ones about an object and, unless not ``below``, what was made for it."""
    found: dict[str, str] = {}
    told = sorted(filter(None, map(read_complaint, events)), key=lambda complaint: complaint.seen)
    for complaint in told:
        if complaint.name == name or (below and complaint.name.startswith(f"{name}-")):
            text = f"{complaint.reason}: {complaint.message}"
            # Of a cause that many pods have, the last one speaks.
            found.pop(gist(text, name), None)
            found[gist(text, name)] = f"event of {complaint.kind} {complaint.name}: {text}"
    return list(found.values())[-_MOST:]


def _time(event: Mapping[str, Any]) -> str:
    seen = event.get("lastTimestamp") or path(event, "series", "lastObservedTime") or event.get("eventTime")
    return seen or path(event, "metadata", "creationTimestamp") or ""
