"""What a random life of an Experiment is made of: choices drawn beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

# Short ones, which a failure shrinks to, and long ones.
choices = st.one_of(
    st.lists(st.integers(0, 719), max_size=20),
    st.integers(0, 2**16).map(lambda seed: Random(seed).choices(range(720), k=60)),
)


class Script:
    """What happens next, drawn beforehand; when it is used up, all goes well."""

    def __init__(self, choices: Sequence[int]) -> None:
        self._choices: Iterator[int] = iter(choices)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[next(self._choices, 0) % len(options)]
