"""An algorithm that learns must find more than luck does, with the same number of trials."""

from __future__ import annotations

from functools import cache

import pytest

from airflow_llmtune.controlplane.algorithms.search_space import Assignments
from searches import double, search

SPACE = [double("x", "-5", "5"), double("y", "-5", "5")]
SEEDS = ("0", "1", "2")


def bowl(point: Assignments) -> float:
    """Least, with 0, at (1.7, -2.3); its axes lie across the parameters'."""
    x, y = float(point["x"]) - 1.7, float(point["y"]) + 2.3
    return x * x + 2 * y * y + 0.5 * x * y


@cache
def best(name: str, trials: int, parallel: int = 1) -> float:
    """The mean over the seeds of the best values."""
    found = [
        search(name, SPACE, bowl, trials=trials, parallel=parallel, settings={"random_state": seed}) for seed in SEEDS
    ]
    return sum(min(trial.value or 0 for trial in past) for past in found) / len(found)


@pytest.mark.parametrize(
    ("name", "trials", "share"),
    [("tpe", 60, 0.6), ("multivariate-tpe", 60, 0.3), ("cmaes", 60, 0.2), ("bayesianoptimization", 30, 0.01)],
)
def test_a_learning_algorithm_beats_random_search(name: str, trials: int, share: float) -> None:
    assert best(name, trials) < share * best("random", trials)


@pytest.mark.parametrize(("name", "share"), [("multivariate-tpe", 0.6), ("cmaes", 0.6)])
def test_it_does_so_with_six_trials_in_parallel_too(name: str, share: float) -> None:
    assert best(name, 60, 6) < share * best("random", 60)
