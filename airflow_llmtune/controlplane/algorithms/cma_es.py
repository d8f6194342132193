"""``cmaes``: covariance matrix adaptation on the library ``cmaes``, replayed from the trials at every call.

The trials in the order of their suggestion are the generations, one block of a population's size after the other. The
distribution is told each block whose trials have all ended and asked for the next point; so with more trials in
parallel than a block holds some points come from a distribution that is one generation old, as upstream's do.
Only ``int`` and ``double`` parameters take part; as upstream, each other parameter is drawn at random. In ``strict``
distributions are ignored, as upstream's library does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from cmaes import CMA

from airflow_llmtune.controlplane.algorithms.library_warnings import unheard
from airflow_llmtune.controlplane.algorithms.request import (
    PastTrial,
    Reply,
    Rule,
    SearchRequest,
    check_settings,
    one_by_one,
)
from airflow_llmtune.controlplane.algorithms.sampling import random_assignments
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, InvalidSettingsError, Range
from airflow_llmtune.controlplane.algorithms.unit_cube import assignments_at, unit_of
from airflow_llmtune.controlplane.algorithms.upstream_space import as_goptuna

_RULES: dict[str, Rule] = {
    "random_state": (lambda text: str(int(text)) != "", ""),
    "sigma": (lambda text: 0 < float(text) < math.inf, "sigma should be great than zero"),
    "restart_strategy": (
        lambda text: text in {"ipop", "bipop", "none"},
        "invalid restart_strategy: '{value}'",
    ),
}
_GROWTH = 2
"""How much larger the population is after each restart."""

_SIGMA = 1 / 6


class CovarianceMatrixAdaptation:
    def validate(self, request: SearchRequest) -> None:
        if len(_searched(request)) < 2:
            raise InvalidSettingsError("CMA-ES only supports two or more dimensional continuous search space.")
        check_settings("cmaes", request.settings, _RULES, ignore_unknown=True)

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        seen = as_goptuna(request)
        with unheard():
            return one_by_one(seen, count, lambda past, seed: _next(seen, past, seed))


def _searched(request: SearchRequest) -> list[Range]:
    return [parameter for parameter in request.space if isinstance(parameter, Range)]


def _next(request: SearchRequest, past: Sequence[PastTrial], seed: int) -> Assignments:
    optimizer = _replayed(request, past)
    optimizer.reseed_rng(seed)
    searched = assignments_at(_searched(request), [float(unit) for unit in optimizer.ask()])
    drawn = random_assignments(request.space, seed)
    return {name: searched.get(name, text) for name, text in drawn.items()}


def _replayed(request: SearchRequest, past: Sequence[PastTrial]) -> CMA:
    searched = _searched(request)
    restarts = _Restarts(request, len(searched))
    optimizer = restarts.begin()
    start = 0
    while True:
        block = past[start : start + optimizer.population_size]
        if len(block) < optimizer.population_size or any(trial.outcome == "running" for trial in block):
            return optimizer
        start += optimizer.population_size
        points = [np.array([unit_of(one, trial.assignments[one.name]) for one in searched]) for trial in block]
        losses = _losses(request, block)
        if losses:
            optimizer.tell(list(zip(points, losses, strict=True)))
        if restarts.wanted and optimizer.should_stop():
            optimizer = restarts.after(optimizer)


def _losses(request: SearchRequest, block: Sequence[PastTrial]) -> list[float]:
    """A trial without a value counts as the worst of its block; nothing when the whole block has none."""
    known = [request.loss(trial) for trial in block if trial.outcome == "complete"]
    return [request.loss(trial) if trial.outcome == "complete" else max(known) for trial in block] if known else []


class _Restarts:
    """Where the search begins, and begins again when it has converged: ``ipop`` with ever larger populations,
    ``bipop`` with larger and smaller ones in turn, so that both get about the same number of trials.
    """

    def __init__(self, request: SearchRequest, dimensions: int) -> None:
        self.wanted = request.settings.get("restart_strategy", "none") != "none"
        self._bipop = request.settings.get("restart_strategy") == "bipop"
        self._dimensions = dimensions
        self._sigma = _sigma(request)
        self._random = random.Random(request.seed(()))  # noqa: S311  no secret
        self._smallest = 0
        self._large_restarts = 0
        self._is_small = False
        self._spent = {True: 0, False: 0}

    def begin(self) -> CMA:
        optimizer = self._made([0.5] * self._dimensions, None)
        self._smallest = optimizer.population_size
        return optimizer

    def after(self, ended: CMA) -> CMA:
        self._spent[self._is_small] += ended.population_size * ended.generation
        self._is_small = self._bipop and self._large_restarts > 0 and self._spent[True] < self._spent[False]
        if not self._is_small:
            self._large_restarts += 1
        growth = float(_GROWTH**self._large_restarts)
        if self._is_small:
            growth **= self._random.random() ** 2
        mean = [self._random.random() for _ in range(self._dimensions)]
        return self._made(mean, math.floor(self._smallest * growth))

    def _made(self, mean: Sequence[float], population_size: int | None) -> CMA:
        bounds = np.array([[0.0, 1.0]] * self._dimensions)
        return CMA(np.array(mean), self._sigma, bounds=bounds, population_size=population_size, seed=0)


def _sigma(request: SearchRequest) -> float:
    """Given in the parameters' own units, as upstream; here relative to the narrowest of them."""
    if "sigma" not in request.settings:
        return _SIGMA
    widths = [float(parameter.high - parameter.low) for parameter in _searched(request)]
    return float(request.settings["sigma"]) / (min(width for width in widths if width > 0) if any(widths) else 1.0)
