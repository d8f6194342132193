"""``random`` and ``tpe`` on Optuna's samplers, through its ask-and-tell interface.

A study is built anew for every parameter set from the trials so far, so nothing is kept between calls.
Optuna has no normal distributions: such a parameter is drawn as its quantile, uniform between 0 and 1, and
mapped back (mean in the middle of the range, a standard deviation of a sixth of it, unbounded, as upstream's
hyperopt draws it).

Importing this module imports Optuna (a quarter of a second); the catalog does that when it is first needed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from airflow_llmtune.controlplane.algorithms.request import (
    RANDOM_STATE,
    PastTrial,
    Rule,
    SearchRequest,
    check_settings,
)
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, Choice, Parameter, Range

_SMALLEST_QUANTILE = 1e-9

_TPE_RULES: dict[str, Rule] = {
    "gamma": (lambda text: 0 < float(text) < 1, "gamma should be in the range of (0, 1)"),
    "prior_weight": (lambda text: float(text) > 0, "prior_weight should be great than zero"),
    "n_EI_candidates": (lambda text: int(text) > 0, "n_EI_candidates should be great than zero"),
    "random_state": RANDOM_STATE,
}

_STATES = {"running": TrialState.RUNNING, "complete": TrialState.COMPLETE, "failed": TrialState.FAIL}


class RandomSearch:
    def validate(self, request: SearchRequest) -> None:
        check_settings("random", request.settings, {"random_state": RANDOM_STATE})

    def suggest(self, request: SearchRequest, count: int) -> list[Assignments]:
        return _draw(request, count, RandomSampler, history=False)


class TreeParzenEstimator:
    """``tpe``: ten random parameter sets first; trials still running count as poor (constant liar)."""

    def validate(self, request: SearchRequest) -> None:
        check_settings("tpe", request.settings, _TPE_RULES)

    def suggest(self, request: SearchRequest, count: int) -> list[Assignments]:
        return _draw(request, count, lambda seed: _tpe_sampler(request, seed), history=True)


def _tpe_sampler(request: SearchRequest, seed: int) -> BaseSampler:
    settings = request.settings
    options: dict[str, object] = {}
    if "n_EI_candidates" in settings:
        options["n_ei_candidates"] = int(settings["n_EI_candidates"])
    if "prior_weight" in settings:
        options["prior_weight"] = float(settings["prior_weight"])
    if "gamma" in settings:
        gamma = float(settings["gamma"])
        # hyperopt's rule for how many of n trials are the good ones; that is what the setting means in Katib.
        options["gamma"] = lambda trials: min(math.ceil(gamma * math.sqrt(trials)), 25)
    with warnings.catch_warnings():
        # Optuna 5 deprecates two of these for its own users; Katib's settings stay.
        warnings.simplefilter("ignore", FutureWarning)
        return TPESampler(seed=seed, constant_liar=True, **options)


def _draw(
    request: SearchRequest, count: int, sampler: Callable[[int], BaseSampler], *, history: bool
) -> list[Assignments]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {parameter.name: _distribution(parameter) for parameter in request.space}
    past = list(request.past)
    drawn: list[Assignments] = []
    for _ in range(count):
        seed = request.seed([trial.assignments for trial in past])
        study = optuna.create_study(sampler=sampler(seed), direction="minimize" if request.minimize else "maximize")
        if history:
            study.add_trials([_frozen(trial, request.space, distributions) for trial in past])
        asked = study.ask(distributions)
        assignments = {parameter.name: _text(parameter, asked.params[parameter.name]) for parameter in request.space}
        past.append(PastTrial(assignments))
        drawn.append(assignments)
    return drawn


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if parameter.is_normal:
        return FloatDistribution(_SMALLEST_QUANTILE, 1 - _SMALLEST_QUANTILE)
    # Optuna allows a step or a logarithm, not both; the value is put on the grid when it is printed.
    stepped = parameter.step is not None and not parameter.is_log
    if parameter.is_int:
        low, high = int(parameter.low), int(parameter.high)
        return IntDistribution(low, high, log=parameter.is_log, step=int(parameter.step or 1) if stepped else 1)
    if stepped and parameter.step is not None:
        last = parameter.low + parameter.step * int((parameter.high - parameter.low) / parameter.step)
        return FloatDistribution(float(parameter.low), float(last), step=float(parameter.step))
    return FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.is_log)


def _normal(parameter: Range) -> NormalDist:
    low, high = float(parameter.low), float(parameter.high)
    if parameter.is_log:
        low, high = math.log(low), math.log(high)
    return NormalDist((low + high) / 2, (high - low) / 6 or 1e-12)


def _text(parameter: Parameter, drawn: float | str) -> str:
    if isinstance(parameter, Choice):
        return str(drawn)
    number = float(drawn)
    if parameter.is_normal:
        number = _normal(parameter).inv_cdf(number)
        number = math.exp(number) if parameter.is_log else number
    return parameter.text(number)


def _known(parameter: Parameter, text: str) -> float | int | str:
    """The inverse of ``_text``, so that trials of the past can be told to a study."""
    if isinstance(parameter, Choice):
        return text
    if parameter.is_normal:
        number = math.log(max(float(text), 5e-324)) if parameter.is_log else float(text)
        return min(max(_normal(parameter).cdf(number), _SMALLEST_QUANTILE), 1 - _SMALLEST_QUANTILE)
    if parameter.is_int:
        return int(text)
    return min(max(float(text), float(parameter.low)), float(parameter.high))


def _frozen(trial: PastTrial, space: Sequence[Parameter], distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    complete = trial.outcome == "complete"
    return optuna.trial.create_trial(
        state=_STATES[trial.outcome],
        value=trial.value if complete else None,
        params={parameter.name: _known(parameter, trial.assignments[parameter.name]) for parameter in space},
        distributions=distributions,
    )
