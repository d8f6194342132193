"""Who gets the next request: a backend by its weight, then the pod with the least to do. No clock, no randomness."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from airflow_llmtune.controlplane.gateway.endpoints import Endpoint
from airflow_llmtune.controlplane.gateway.routes import Backend, Rule

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_MOST_REMEMBERED = 1000


class WeightedTurns:
    """Smooth weighted round robin: of 10 requests in a row, exactly one goes to a backend that has 10 % of the weight.

    A rule starts anew when its backends or their weights change.
    """

    def __init__(self) -> None:
        self._credits = _Remembered[tuple[object, ...], list[int]]()

    def next(self, rule: Rule) -> Backend | None:
        """None when no backend may get anything."""
        total = sum(backend.weight for backend in rule.backends)
        if not total:
            return None
        credit = self._credits.get(rule.shares) or [0] * len(rule.backends)
        credit = [had + backend.weight for had, backend in zip(credit, rule.backends, strict=True)]
        chosen = max(range(len(credit)), key=credit.__getitem__)
        credit[chosen] -= total
        self._credits.put(rule.shares, credit)
        return rule.backends[chosen]


class LeastBusy:
    """The pod with the fewest requests under way; among equals the one that was chosen longest ago."""

    def __init__(self) -> None:
        self._busy: Counter[str] = Counter()
        self._turns = _Remembered[str, int]()
        self._turn = 0

    def choose(self, candidates: Sequence[Endpoint]) -> Endpoint:
        chosen = min(candidates, key=lambda one: (self._busy[one.uid], self._turns.get(one.uid) or 0))
        self._turn += 1
        self._turns.put(chosen.uid, self._turn)
        return chosen

    @contextlib.contextmanager
    def busy(self, endpoint: Endpoint) -> Iterator[None]:
        self._busy[endpoint.uid] += 1
        try:
            yield
        finally:
            self._busy[endpoint.uid] -= 1
            if not self._busy[endpoint.uid]:
                del self._busy[endpoint.uid]


class _Remembered(Generic[Key, Value]):
    """A dictionary that forgets what was put in longest ago: rules and pods come and go."""

    def __init__(self) -> None:
        self._values: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        self._values.pop(key, None)
        self._values[key] = value
        if len(self._values) > _MOST_REMEMBERED:
            del self._values[next(iter(self._values))]
