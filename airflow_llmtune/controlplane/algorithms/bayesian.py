"""``bayesianoptimization``: a regressor of the results so far, and the point that promises most by it.

The settings are those of upstream's library: the regressor (``base_estimator``), what promising means (``acq_func``)
and how that is searched (``acq_optimizer``). Trials still running count as if they came out as the mean of the ended
ones, so that parallel ones keep apart.

Differs from upstream: ``gp_hedge`` weighs its three functions by the present model alone, since nothing is kept between
calls. Unless ``strict``, doubles are searched in their own distribution, not always in logarithms, and what upstream
accepts and then fails at without end is refused: the functions that need the trials' times (``EIps``, ``PIps``), and
``lbfgs`` on trees, which have no slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

from airflow_llmtune.controlplane.algorithms.library_warnings import unheard
from airflow_llmtune.controlplane.algorithms.request import (
    RANDOM_STATE,
    PastTrial,
    Reply,
    Rule,
    SearchRequest,
    check_settings,
    one_by_one,
)
from airflow_llmtune.controlplane.algorithms.sampling import random_assignments
from airflow_llmtune.controlplane.algorithms.search_space import (
    Assignments,
    Choice,
    InvalidSettingsError,
    Parameter,
)
from airflow_llmtune.controlplane.algorithms.surrogate import Array, Surrogate, surrogate
from airflow_llmtune.controlplane.algorithms.unit_cube import text_at, unit_of
from airflow_llmtune.controlplane.algorithms.upstream_space import UpstreamFailureError, as_skopt

Promise = Callable[[Array, Array, float], Array]
"""From means, deviations and the least loss so far to what a point promises: more is better."""

_INITIAL_POINTS = 10
_CANDIDATES = 1000
_STARTS = 3
_XI = 0.01
_KAPPA = 1.96
_LITTLE = 1e-6
_MOST_TOLD = 100
"""The time that a Gaussian process takes grows with the cube of what it is told; it is asked once per trial."""


def _one_of(setting: str, *names: str) -> Rule:
    return (lambda text: text in names, f"{setting} {{value}} is not supported in Bayesian optimization")


_RULES: dict[str, Rule] = {
    "base_estimator": _one_of("base_estimator", "GP", "RF", "ET", "GBRT"),
    "n_initial_points": (lambda text: int(text) >= 0, "n_initial_points should be great or equal than zero"),
    "acq_func": _one_of("acq_func", "gp_hedge", "LCB", "EI", "PI", "EIps", "PIps"),
    "acq_optimizer": _one_of("acq_optimizer", "auto", "sampling", "lbfgs"),
    "random_state": RANDOM_STATE,
}


class BayesianOptimization:
    def validate(self, request: SearchRequest) -> None:
        check_settings("bayesianoptimization", request.settings, _RULES)
        complaint = _without_slope(request) or _without_times(request)
        if complaint and not request.strict:
            raise InvalidSettingsError(complaint)

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        # Only strict comes here with such settings; upstream misses the times when the first result is there.
        complaint = _without_slope(request) or (_has_value(request.past) and _without_times(request))
        if complaint:
            raise UpstreamFailureError(f"Exception calling application: {complaint}")
        seen = as_skopt(request)
        with unheard():
            return one_by_one(seen, count, lambda past, seed: _next(seen, past, seed))


def _without_slope(request: SearchRequest) -> str:
    estimator = request.settings.get("base_estimator", "GP")
    if request.settings.get("acq_optimizer") != "lbfgs" or estimator == "GP":
        return ""
    return f"acq_optimizer lbfgs needs base_estimator GP, {estimator} has no slope to follow"


def _without_times(request: SearchRequest) -> str:
    function = request.settings.get("acq_func", "")
    if not function.endswith("ps"):
        return ""
    better = function.removesuffix("ps")
    return f"acq_func {function} weighs in how long each trial took, which Katib does not pass on; use {better}"


def _next(request: SearchRequest, past: Sequence[PastTrial], seed: int) -> Assignments:
    told = _told(request, past)
    if len(told) < int(request.settings.get("n_initial_points", _INITIAL_POINTS)) or not _has_value(told):
        return random_assignments(request.space, seed)
    cube = _Cube(request.space)
    losses = _standardised(request, told)
    model = surrogate(request.settings.get("base_estimator", "GP"), cube.dimensions, seed)
    model.fit(np.array([cube.point(trial.assignments) for trial in told]), losses)
    used = [trial.assignments for trial in past]
    points = _ranked(request, cube, model, float(losses.min()), np.random.default_rng(seed))
    # A point that was tried already tells nothing new, unless the space has no other.
    return next((one for one in map(cube.assignments, points) if one not in used), cube.assignments(points[0]))


def _told(request: SearchRequest, past: Sequence[PastTrial]) -> Sequence[PastTrial]:
    """What the model learns from; of very many the latest, which may still run, and the best before them."""
    known = [trial for trial in past if trial.outcome != "failed"]
    if len(known) <= _MOST_TOLD:
        return known
    earlier, latest = known[: -_MOST_TOLD // 2], known[-_MOST_TOLD // 2 :]
    complete = [trial for trial in earlier if trial.outcome == "complete"]
    return [*sorted(complete, key=request.loss)[: _MOST_TOLD // 2], *latest]


def _has_value(told: Sequence[PastTrial]) -> bool:
    return any(trial.outcome == "complete" for trial in told)


def _standardised(request: SearchRequest, told: Sequence[PastTrial]) -> Array:
    """Mean 0 and deviation 1; the running trials are at the mean.

    A trial that diverged counts as no worse than ten times the way from the best to the median: beside a loss of 1e9
    all others would look the same.
    """
    losses = np.array([request.loss(trial) if trial.outcome == "complete" else np.nan for trial in told])
    best, median = np.nanmin(losses), np.nanmedian(losses)
    if median > best:
        losses = np.minimum(losses, median + 10 * (median - best))
    deviation = np.nanstd(losses) or 1.0
    return np.asarray(np.nan_to_num((losses - np.nanmean(losses)) / deviation))


class _Cube:
    """The feasible space for a regressor: a number each for what has an order, one column per option for the rest."""

    def __init__(self, space: Sequence[Parameter]) -> None:
        self._space = space
        self._widths = [len(one.options) if isinstance(one, Choice) else 1 for one in space]
        self.dimensions = sum(self._widths)
        self.is_free = np.concatenate([[not isinstance(one, Choice)] * width for one, width in self._columns()])
        """Which columns may be moved by little."""

    def _columns(self) -> list[tuple[Parameter, int]]:
        return list(zip(self._space, self._widths, strict=True))

    def point(self, assignments: Assignments) -> Array:
        parts: list[Sequence[float]] = []
        for one in self._space:
            text = assignments[one.name]
            if isinstance(one, Choice):
                parts.append([float(option == text) for option in one.options])
            else:
                parts.append([unit_of(one, text)])
        return np.concatenate(parts, dtype=np.float64)

    def assignments(self, point: Array) -> Assignments:
        found, start = {}, 0
        for one, width in self._columns():
            part = point[start : start + width]
            start += width
            found[one.name] = (
                one.options[int(part.argmax())] if isinstance(one, Choice) else text_at(one, float(part[0]))
            )
        return found

    def random_points(self, count: int, generator: np.random.Generator) -> Array:
        columns = [
            np.eye(width)[generator.integers(width, size=count)]
            if isinstance(one, Choice)
            else generator.random((count, 1))
            for one, width in self._columns()
        ]
        return np.concatenate(columns, axis=1, dtype=np.float64)


def _ranked(
    request: SearchRequest, cube: _Cube, model: Surrogate, least: float, generator: np.random.Generator
) -> Array:
    """Points, the most promising first."""
    candidates = cube.random_points(_CANDIDATES, generator)
    mean, deviation = model.predict(candidates)
    promise = _promise(request.settings.get("acq_func", "gp_hedge"), mean, deviation, least, generator)
    best = candidates[np.argsort(-promise(mean, deviation, least), kind="stable")]
    if model.is_smooth and request.settings.get("acq_optimizer", "auto") != "sampling":
        climbed = [_climbed(start, cube, model, promise, least) for start in best[:_STARTS]]
        heights = promise(*model.predict(np.array(climbed)), least)
        best = np.concatenate([np.array(climbed)[np.argsort(-heights, kind="stable")], best])
    return best


def _climbed(start: Array, cube: _Cube, model: Surrogate, promise: Promise, least: float) -> Array:
    """The top of the hill that this point is on; options are kept."""
    free = cube.is_free
    if not free.any():
        return start

    columns = np.flatnonzero(free)

    def depth(moved: Array) -> tuple[float, Array]:
        """With its slope: the point and one a little further in each direction, all in one prediction."""
        around = np.tile(start, (len(columns) + 1, 1))
        around[:, columns] = moved
        around[np.arange(len(columns)) + 1, columns] += _LITTLE
        heights = promise(*model.predict(around), least)
        return -float(heights[0]), (heights[0] - heights[1:]) / _LITTLE

    bounds = [(0.0, 1.0)] * len(columns)
    found = minimize(depth, start[free], jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 20})
    top = start.copy()
    top[free] = np.clip(found.x, 0.0, 1.0)
    return top


def _expected_improvement(mean: Array, deviation: Array, least: float) -> Array:
    gain = least - mean - _XI
    normal = gain / deviation
    return np.asarray(gain * ndtr(normal) + deviation * np.exp(-(normal**2) / 2) / np.sqrt(2 * np.pi))


def _probability_of_improvement(mean: Array, deviation: Array, least: float) -> Array:
    return np.asarray(ndtr((least - mean - _XI) / deviation))


def _lower_confidence_bound(mean: Array, deviation: Array, _: float) -> Array:
    return _KAPPA * deviation - mean


_PROMISES: dict[str, Promise] = {
    "EI": _expected_improvement,
    "PI": _probability_of_improvement,
    "LCB": _lower_confidence_bound,
}


def _promise(name: str, mean: Array, deviation: Array, least: float, generator: np.random.Generator) -> Promise:
    if name in _PROMISES:
        return _PROMISES[name]
    # gp_hedge: each function proposes, and the lower the proposal's predicted loss the likelier the function is taken.
    functions = list(_PROMISES.values())
    gains = np.array([-mean[int(function(mean, deviation, least).argmax())] for function in functions])
    weights = np.exp(gains - gains.max())
    return functions[int(generator.choice(len(functions), p=weights / weights.sum()))]
