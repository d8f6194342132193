"""The regressors of ``bayesianoptimization``: a mean and a standard deviation for each point, on scikit-learn.

Importing it imports scikit-learn (about a second).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

Array = np.ndarray[Any, np.dtype[np.float64]]

_SMALLEST_DEVIATION = 1e-9


class Surrogate(Protocol):
    is_smooth: bool
    """Whether following its slope leads anywhere."""

    def fit(self, points: Array, losses: Array) -> None: ...

    def predict(self, points: Array) -> tuple[Array, Array]: ...


class GaussianProcess:
    is_smooth = True

    def __init__(self, dimensions: int, seed: int) -> None:
        lengths = Matern(np.ones(dimensions), length_scale_bounds=(0.02, 20.0), nu=2.5)
        kernel = ConstantKernel(1.0, (0.01, 1000.0)) * lengths + WhiteKernel(1e-4, (1e-8, 1.0))
        self._model = GaussianProcessRegressor(kernel, n_restarts_optimizer=0, random_state=seed)

    def fit(self, points: Array, losses: Array) -> None:
        self._model.fit(points, losses)

    def predict(self, points: Array) -> tuple[Array, Array]:
        mean, deviation = self._model.predict(points, return_std=True)
        return mean, np.maximum(deviation, _SMALLEST_DEVIATION)


class Trees:
    """A forest's deviation is that of its trees among each other."""

    is_smooth = False

    def __init__(self, forest: type[RandomForestRegressor] | type[ExtraTreesRegressor], seed: int) -> None:
        self._model = forest(n_estimators=60, min_samples_leaf=2, random_state=seed)

    def fit(self, points: Array, losses: Array) -> None:
        self._model.fit(points, losses)

    def predict(self, points: Array) -> tuple[Array, Array]:
        each = np.array([tree.predict(points) for tree in self._model.estimators_])
        return each.mean(axis=0), np.maximum(each.std(axis=0), _SMALLEST_DEVIATION)


class BoostedQuantiles:
    """The median, and as deviation half the distance of the quantiles that lie one deviation off in a normal one."""

    is_smooth = False

    def __init__(self, seed: int) -> None:
        self._models = [
            GradientBoostingRegressor(loss="quantile", alpha=alpha, n_estimators=30, random_state=seed)
            for alpha in (0.16, 0.5, 0.84)
        ]

    def fit(self, points: Array, losses: Array) -> None:
        for model in self._models:
            model.fit(points, losses)

    def predict(self, points: Array) -> tuple[Array, Array]:
        low, median, high = (model.predict(points) for model in self._models)
        return median, np.maximum((high - low) / 2, _SMALLEST_DEVIATION)


def surrogate(name: str, dimensions: int, seed: int) -> Surrogate:
    match name:
        case "RF":
            return Trees(RandomForestRegressor, seed)
        case "ET":
            return Trees(ExtraTreesRegressor, seed)
        case "GBRT":
            return BoostedQuantiles(seed)
        case _:
            return GaussianProcess(dimensions, seed)
