"""A metrics filter: finds names and values in a line of output. Pure.

Katib's filters are Go's, so RE2 reads them: it refuses what Go refuses, and never goes back over a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import re2

DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"

# The library's words for a mistake, and Go's.
_GO_WORDS = {
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "bad repetition operator": "invalid nested repetition operator",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
}
_GROUPS_NEEDED = 2
_CACHED_FILTERS = 256


class FilterError(ValueError):
    """Katib would refuse the filter, too."""


class Filter(Protocol):
    """A compiled expression, with as much of Python's patterns as is used here."""

    groups: int

    def finditer(self, text: str) -> Iterator[Any]: ...

    def search(self, text: str) -> Any: ...


@lru_cache(maxsize=_CACHED_FILTERS)
def compile_filter(text: str) -> Filter:
    """Raises FilterError for what Go refuses (look-around, back references, …), in its words."""
    options = re2.Options()
    options.log_errors = False  # The library would write to stderr what the caller is told anyway.
    try:
        compiled: Filter = re2.compile(text, options)
    except re2.error as error:
        words, _, where = error.args[0].decode().partition(": ")
        raise FilterError(f"error parsing regexp: {_GO_WORDS.get(words, words)}: `{where}`") from error
    return compiled


def find_all(line: str, filters: Sequence[Filter]) -> Iterator[tuple[str, str]]:
    """Name and value of every match of every filter.

    The value group may match nothing (``loss=nan``): the value is then empty, as Katib stores it. A filter with
    fewer than two groups finds nothing.
    """
    for one in filters:
        if one.groups >= _GROUPS_NEEDED:
            for match in one.finditer(line):
                yield (match[1] or "").strip(), (match[2] or "").strip()
