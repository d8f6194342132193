"""Causes in the words of a cluster: what texts of one have in common, and which does not pass by itself."""

from __future__ import annotations

import re

__all__ = ["gist", "lacks_claim"]

# Of one cause they differ from object to object, and from minute to minute; but an exit code is a cause.
_NUMBERS = re.compile(
    r"\b[0-9a-f]{8}[0-9a-f-]*\b"  # uids, digests
    r"|\b(?:\d+h)?(?:\d+m)?\d+s\b"  # durations, as Go writes them
    r"|(?<!exit code )(?<![\d.])\d+(?:\.\d+)?(?:e[+-]?\d+)?"
)


def gist(text: str, name: str) -> str:
    """Leave out numbers and whatever begins with ``name``, as the names of all that was made for an object do."""
    return _NUMBERS.sub("#", re.sub(rf"{re.escape(name)}[\w.-]*", "…", text))


def lacks_claim(text: str) -> bool:
    """Whether a pod waits for a volume claim that is not there; a scheduler calls that unschedulable, too."""
    return re.search(r'persistentvolumeclaim "[^"]*" not found', text) is not None
