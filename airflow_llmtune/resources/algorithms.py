"""What Katib's stock algorithms ask of an Experiment; checked here before a Suggestion fails on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_llmtune.resources.meta import finite
from airflow_llmtune.resources.problems import Problems, did_you_mean

if TYPE_CHECKING:
    from airflow_llmtune.resources.search_space import SearchSpace

__all__ = ["ALGORITHMS", "check_algorithm"]


class Algorithm(NamedTuple):
    settings: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


ALGORITHMS: Mapping[str, Algorithm] = {
    "random": Algorithm(("random_state",)),
    "grid": Algorithm(("random_state",)),
    "tpe": Algorithm(("gamma", "prior_weight", "n_EI_candidates", "random_state")),
    "multivariate-tpe": Algorithm(("n_startup_trials", "n_ei_candidates", "random_state")),
    "bayesianoptimization": Algorithm(
        ("base_estimator", "n_initial_points", "acq_func", "acq_optimizer", "random_state")
    ),
    "cmaes": Algorithm(("random_state", "sigma", "restart_strategy")),
    "sobol": Algorithm(),
    "hyperband": Algorithm(("r_l", "resource_name", "eta"), required=("r_l", "resource_name")),
    "pbt": Algorithm(
        ("suggestion_trial_dir", "n_population", "truncation_threshold", "resample_probability"),
        required=("suggestion_trial_dir", "n_population", "truncation_threshold"),
    ),
}


def check_algorithm(
    name: str,
    settings: Mapping[str, str],
    space: SearchSpace | None,
    max_trial_count: int | None,
    parallel_trial_count: int | None,
    problems: Problems,
) -> None:
    """What is None has mistakes of its own, from which others would only follow."""
    algorithm = ALGORITHMS[name]
    for setting, value in settings.items():
        if setting not in algorithm.settings:
            fix = did_you_mean(setting, algorithm.settings) if algorithm.settings else "leave it out"
            problems.add(f"algorithm_settings.{setting}", value, f"is not known to {name}", fix)
    for setting in algorithm.required:
        if setting not in settings:
            problems.add(f"algorithm_settings.{setting}", None, f"is missing; {name} needs it", "give a value")
    if name == "hyperband":
        _check_hyperband(settings, space, parallel_trial_count, problems)
    if space is None:
        return
    if name == "grid":
        _check_grid(space, max_trial_count, problems)
    elif name == "cmaes" and sum(parameter.is_range for parameter in space.parameters) < 2:
        rule = "needs two or more parameters of type double or int"
        problems.add("algorithm_name", name, rule, "add one, or use `tpe`")
    elif name == "pbt":
        _check_steps(space, "pbt", ("double", "int"), problems)


def _check_grid(space: SearchSpace, max_trial_count: int | None, problems: Problems) -> None:
    _check_steps(space, "grid", ("double",), problems)
    size = space.size()
    if size is not None and max_trial_count is not None and max_trial_count > size:
        rule = f"is more than the {size} combinations of the grid"
        problems.add("max_trial_count", max_trial_count, rule, f"give {size} or less, or finer steps")


def _check_steps(space: SearchSpace, name: str, types: tuple[str, ...], problems: Problems) -> None:
    for parameter in space.parameters:
        if parameter.type in types and parameter.step is None:
            rule = f"is missing; {name} needs it for type {parameter.type}"
            problems.add(f"parameters.{parameter.name}.step", None, rule, "give a step")


def _check_hyperband(
    settings: Mapping[str, str], space: SearchSpace | None, parallel_trial_count: int | None, problems: Problems
) -> None:
    resource = settings.get("resource_name")
    if space is not None and resource is not None and resource not in space.names:
        fix = did_you_mean(resource, space.names)
        problems.add("algorithm_settings.resource_name", resource, "is none of the parameters", fix)
    most, eta = finite(settings.get("r_l")), finite(settings.get("eta", "3"))
    if "r_l" in settings and (most is None or most < 1):
        problems.add("algorithm_settings.r_l", settings["r_l"], "is not a number of 1 or more", "give such a number")
    elif eta is None or eta <= 1:
        problems.add("algorithm_settings.eta", settings["eta"], "is not a number above 1", "give such as 3")
    elif most is not None and parallel_trial_count is not None:
        needed = math.ceil(eta ** math.floor(math.log(most, eta) + 1e-9))
        if parallel_trial_count < needed:
            rule = f"is less than the {needed} that hyperband starts at once (eta^floor(log_eta(r_l)))"
            problems.add("parallel_trial_count", parallel_trial_count, rule, f"give {needed} or more")
