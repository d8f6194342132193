"""How long a container that ended waits to be started again. Pure.

The first start again comes at once, later ones after 10 s, 20 s, … up to five minutes, as a kubelet waits; one that
has run for longer than ten minutes begins anew.
"""

from __future__ import annotations

from airflow_llmtune.controlplane.clock import parse_timestamp
from airflow_llmtune.controlplane.kubelet.pod_status import State

_LONGEST_SECONDS = 300.0
_FORGIVEN_SECONDS = 2 * _LONGEST_SECONDS
_MOST_DOUBLINGS = 20


def backoff_seconds(crashes: int, base_seconds: float) -> float:
    """``crashes``: how often it was started again before."""
    if crashes == 0:
        return 0.0
    return float(min(base_seconds * 2 ** min(crashes - 1, _MOST_DOUBLINGS), _LONGEST_SECONDS))


class Reminder:
    """
    When to complain again of what has not changed: after 10 s, 20 s, … up to five minutes.

    A kubelet looks again all the time, and its events come ever more seldom.
    """

    def __init__(self, base_seconds: float) -> None:
        self._base_seconds = base_seconds
        self._text = ""
        self._count = 0
        self._due = 0.0

    def is_due(self, text: str, now: float) -> bool:
        if text == self._text and now < self._due:
            return False
        self._count = self._count + 1 if text == self._text else 1
        self._text, self._due = text, now + backoff_seconds(self._count, self._base_seconds)
        return True


def is_forgiven(state: State) -> bool:
    """Whether it ran so long that its earlier ends do not count any more."""
    ended = state["terminated"]
    ran = parse_timestamp(ended["finishedAt"]) - parse_timestamp(ended["startedAt"])
    return ran.total_seconds() > _FORGIVEN_SECONDS


def go_duration(seconds: float) -> str:
    """``1m20s``; hours do not come up."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:g}m{rest:g}s" if minutes else f"{rest:g}s"
