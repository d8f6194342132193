"""``random``, ``tpe`` and ``multivariate-tpe`` on Optuna's samplers, through its ask-and-tell interface.

A study is built anew for every parameter set from the trials so far, so nothing is kept between calls.
Optuna has no normal distributions: such a parameter is drawn as its quantile, uniform between 0 and 1, and
mapped back (mean in the middle of the range, a standard deviation of a sixth of it). ``random`` and ``tpe`` leave
it unbounded, as upstream's hyperopt does; for ``multivariate-tpe``, which upstream has no such distribution, it ends
at the bounds, or fails as upstream in ``strict``.

Importing this module imports Optuna (a quarter of a second); the catalog does that when it is first needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

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
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, Choice, Parameter, Range
from airflow_llmtune.controlplane.algorithms.upstream_space import as_optuna

_SMALLEST_QUANTILE = 1e-9
_LARGEST_EXACT = 2**53
"""Up to here each int is a double, which is what Optuna calculates with."""
_SHORTEST_LOG_RANGE = 1 + 1e-9

_TPE_RULES: dict[str, Rule] = {
    "gamma": (lambda text: 0 < float(text) < 1, "gamma should be in the range of (0, 1)"),
    "prior_weight": (lambda text: float(text) > 0, "prior_weight should be great than zero"),
    "n_EI_candidates": (lambda text: int(text) > 0, "n_EI_candidates should be great than zero"),
    "random_state": RANDOM_STATE,
}

# Upstream spells it so.
_MULTIVARIATE_RULES: dict[str, Rule] = {
    name: (lambda text: int(text) >= 0, f"{name} should be greate or equal than zero")
    for name in ("n_startup_trials", "n_ei_candidates", "random_state")
}

_STATES = {"running": TrialState.RUNNING, "complete": TrialState.COMPLETE, "failed": TrialState.FAIL}


class RandomSearch:
    def validate(self, request: SearchRequest) -> None:
        check_settings("random", request.settings, {"random_state": RANDOM_STATE})

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        space = _Space(request.space, bounded=False)
        return one_by_one(request, count, lambda _, seed: space.draw(RandomSampler(seed=seed), "minimize", ()))


class TreeParzenEstimator:
    """``tpe``: ten random parameter sets first; trials still running count as poor (constant liar)."""

    def validate(self, request: SearchRequest) -> None:
        check_settings("tpe", request.settings, _TPE_RULES)

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        options = _tpe_options(request)
        if request.strict and request.past:
            # Upstream draws each set of a later call with the same seed from the same trials.
            drawn = _learn(request, 1, options, bounded=False).suggested
            return Reply([*drawn] * count)
        return _learn(request, count, options, bounded=False)


class MultivariateTreeParzenEstimator:
    """``multivariate-tpe``: as ``tpe``, with one density over all parameters together."""

    def validate(self, request: SearchRequest) -> None:
        check_settings("multivariate-tpe", request.settings, _MULTIVARIATE_RULES)

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        options: dict[str, object] = {"multivariate": True}
        for name in ("n_startup_trials", "n_ei_candidates"):
            if name in request.settings:
                # Without a single candidate there is nothing to choose from.
                options[name] = max(int(request.settings[name]), int(name == "n_ei_candidates"))
        return _learn(as_optuna(request), count, options, bounded=True)


def random_assignments(space: Sequence[Parameter], seed: int) -> Assignments:
    """One random parameter set inside its feasible space."""
    return _Space(space, bounded=True).draw(RandomSampler(seed=seed), "minimize", ())


def _tpe_options(request: SearchRequest) -> dict[str, object]:
    settings = request.settings
    options: dict[str, object] = {"multivariate": False}
    if "n_EI_candidates" in settings:
        options["n_ei_candidates"] = int(settings["n_EI_candidates"])
    if "prior_weight" in settings:
        options["prior_weight"] = float(settings["prior_weight"])
    if "gamma" in settings:
        gamma = float(settings["gamma"])
        # hyperopt's rule for how many of n trials are the good ones; that is what the setting means in Katib.
        options["gamma"] = lambda trials: min(math.ceil(gamma * math.sqrt(trials)), 25)
    return options


def _learn(request: SearchRequest, count: int, options: dict[str, object], *, bounded: bool) -> Reply:
    space = _Space(request.space, bounded=bounded)
    direction = "minimize" if request.minimize else "maximize"

    def sampler(seed: int) -> BaseSampler:
        return TPESampler(seed=seed, constant_liar=True, **options)

    with unheard():
        return one_by_one(request, count, lambda past, seed: space.draw(sampler(seed), direction, past))


def _is_exact_int(parameter: Range) -> bool:
    """A larger int is searched as a double, and rounded."""
    return parameter.is_int and max(-parameter.low, parameter.high) <= _LARGEST_EXACT


class _Space:
    """The feasible space in Optuna's terms."""

    def __init__(self, parameters: Sequence[Parameter], *, bounded: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._parameters = parameters
        self._bounded = bounded
        self._distributions = {parameter.name: self._distribution(parameter) for parameter in parameters}

    def draw(self, sampler: BaseSampler, direction: str, past: Sequence[PastTrial]) -> Assignments:
        study = optuna.create_study(sampler=sampler, direction=direction)
        study.add_trials([self._frozen(trial) for trial in past])
        asked = study.ask(self._distributions)
        return {parameter.name: self._text(parameter, asked.params[parameter.name]) for parameter in self._parameters}

    def _distribution(self, parameter: Parameter) -> BaseDistribution:
        if isinstance(parameter, Choice):
            return CategoricalDistribution(parameter.options)
        if parameter.is_normal:
            return FloatDistribution(*self._quantiles(parameter))
        # Optuna allows a step or a logarithm, not both; the value is put on the grid when it is printed.
        stepped = parameter.step is not None and not parameter.is_log
        if _is_exact_int(parameter):
            low, high = int(parameter.low), int(parameter.last if stepped else parameter.high)
            return IntDistribution(low, high, log=parameter.is_log, step=int(parameter.step or 1) if stepped else 1)
        if stepped and not parameter.is_int:
            return FloatDistribution(float(parameter.low), float(parameter.last), step=float(parameter.step or 1))
        least, most = float(parameter.low), float(parameter.high)
        # Over a very short range the samplers' sums in logarithms are no numbers, and there is no difference.
        return FloatDistribution(least, most, log=parameter.is_log and most > least * _SHORTEST_LOG_RANGE)

    def _quantiles(self, parameter: Range) -> tuple[float, float]:
        if not self._bounded:
            return _SMALLEST_QUANTILE, 1 - _SMALLEST_QUANTILE
        return parameter.quantile(float(parameter.low)), parameter.quantile(float(parameter.last))

    def _text(self, parameter: Parameter, drawn: float | str) -> str:
        if isinstance(parameter, Choice):
            return str(drawn)
        assert not isinstance(drawn, str)
        if not parameter.is_normal:
            return parameter.text(drawn)
        number = parameter.at_quantile(drawn)
        if self._bounded:
            number = min(max(number, float(parameter.low)), float(parameter.last))
        return parameter.text(number)

    def _known(self, parameter: Parameter, text: str) -> float | int | str:
        """The inverse of ``_text``, so that trials of the past can be told to a study."""
        if isinstance(parameter, Choice):
            return text
        if parameter.is_normal:
            least, most = self._quantiles(parameter)
            return min(max(parameter.quantile(float(text)), least), most)
        if _is_exact_int(parameter):
            return int(text)
        return min(max(float(text), float(parameter.low)), float(parameter.high))

    def _frozen(self, trial: PastTrial) -> FrozenTrial:
        return optuna.trial.create_trial(
            state=_STATES[trial.outcome],
            value=trial.value if trial.outcome == "complete" else None,
            params={one.name: self._known(one, trial.assignments[one.name]) for one in self._parameters},
            distributions=self._distributions,
        )
