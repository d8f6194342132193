"""Time as the control plane sees it: a function that can be replaced by a test's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """``metav1.Time``: RFC 3339 in UTC with whole seconds, which is all that Kubernetes keeps."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_left(since: str, seconds: float, now: datetime) -> float:
    """Until so many seconds have passed since a timestamp; negative once they have."""
    return (parse_timestamp(since) - now).total_seconds() + seconds
