"""``grid``: every combination once, in an order shuffled by the seed."""

from __future__ import annotations

import itertools
import random

from airflow_llmtune.controlplane.algorithms.request import RANDOM_STATE, SearchRequest, check_settings
from airflow_llmtune.controlplane.algorithms.search_space import (
    Assignments,
    InvalidSettingsError,
    combinations,
)


class GridSearch:
    """Needs no library: the combinations are listed and those already used are left out."""

    def validate(self, request: SearchRequest) -> None:
        check_settings("grid", request.settings, {"random_state": RANDOM_STATE})
        possible = combinations(request.space)
        if request.max_trial_count is not None and request.max_trial_count > possible:
            raise InvalidSettingsError(
                f"Max Trial Count: {request.max_trial_count} > all possible search combinations: {possible}"
            )

    def suggest(self, request: SearchRequest, count: int) -> list[Assignments]:
        names = [parameter.name for parameter in request.space]
        points = list(itertools.product(*(parameter.values() for parameter in request.space)))
        random.Random(request.seed(())).shuffle(points)  # noqa: S311  no secret
        used = {tuple(trial.assignments[name] for name in names) for trial in request.past}
        free = (point for point in points if point not in used)
        return [dict(zip(names, point, strict=True)) for point in itertools.islice(free, count)]
