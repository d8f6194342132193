"""``grid``: every combination once, in an order shuffled by the seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

from airflow_llmtune.controlplane.algorithms.request import (
    RANDOM_STATE,
    Reply,
    SearchRequest,
    Suggested,
    check_settings,
)
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError, combinations
from airflow_llmtune.controlplane.algorithms.upstream_space import as_optuna

_LONGEST_LIST = 100_000


class GridSearch:
    """Needs no library: the combinations are numbered and those already used are left out."""

    def validate(self, request: SearchRequest) -> None:
        check_settings("grid", request.settings, {"random_state": RANDOM_STATE})
        possible = combinations(request.space)
        if request.max_trial_count is not None and request.max_trial_count > possible:
            raise InvalidSettingsError(
                f"Max Trial Count: {request.max_trial_count} > all possible search combinations: {possible}"
            )

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        request = as_optuna(request)
        names = [parameter.name for parameter in request.space]
        axes = [parameter.values() for parameter in request.space]
        used = {tuple(trial.assignments[name] for name in names) for trial in request.past}
        points = (_point(axes, number) for number in _shuffled(math.prod(map(len, axes)), request.seed(())))
        free = (point for point in points if point not in used)
        chosen = itertools.islice(free, count)
        suggested = [Suggested(dict(zip(names, point, strict=True))) for point in chosen]
        return Reply(suggested, ended=len(suggested) < count)


def _point(axes: Sequence[Sequence[str]], number: int) -> tuple[str, ...]:
    """One combination by its number, the last parameter counting fastest."""
    point = []
    for values in reversed(axes):
        number, place = divmod(number, len(values))
        point.append(values[place])
    return tuple(reversed(point))


def _shuffled(count: int, seed: int) -> Iterator[int]:
    """The numbers below ``count``, each once; very many are drawn one by one, since a list would fill the memory."""
    generator = random.Random(seed)  # noqa: S311  no secret
    if count <= _LONGEST_LIST:
        numbers = list(range(count))
        generator.shuffle(numbers)
        yield from numbers
        return
    drawn: set[int] = set()
    while len(drawn) < count:
        number = generator.randrange(count)
        if number not in drawn:
            drawn.add(number)
            yield number
