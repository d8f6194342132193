"""The settings of each algorithm: a value that it takes and one that it refuses, with its own words for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_llmtune.controlplane.algorithms import median_stop
from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError, parse
from docs.compatibility_notes import NotesError

# Name, a value that will do, one that will not. An empty one: no value is refused.
_SAMPLES: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "random": [("random_state", "7", "-1")],
    "grid": [("random_state", "7", "-1")],
    "tpe": [
        ("gamma", "0.25", "1"),
        ("prior_weight", "1.0", "0"),
        ("n_EI_candidates", "24", "0"),
        ("random_state", "7", "-1"),
    ],
    "multivariate-tpe": [
        ("n_startup_trials", "5", "-1"),
        ("n_ei_candidates", "24", "-1"),
        ("random_state", "7", "-1"),
    ],
    "bayesianoptimization": [
        ("base_estimator", "GP", "SVM"),
        ("n_initial_points", "10", "-1"),
        ("acq_func", "gp_hedge", "EIps"),
        ("acq_optimizer", "auto", "newton"),
        ("random_state", "7", "-1"),
    ],
    "cmaes": [("random_state", "7", "many"), ("sigma", "0.1", "0"), ("restart_strategy", "ipop", "never")],
    "sobol": [("random_state", "7", "")],
    "hyperband": [("r_l", "9", "0"), ("resource_name", "rate", "absent"), ("eta", "3", "1")],
    "pbt": [
        ("suggestion_trial_dir", "/checkpoints", ""),
        ("n_population", "5", "4"),
        ("truncation_threshold", "0.2", "2"),
        ("resample_probability", "0.3", "2"),
    ],
    "medianstop": [("min_trials_required", "3", "0"), ("start_step", "4", "0")],
}
# Without these nothing else is looked at.
_REQUIRED = ("r_l", "resource_name", "suggestion_trial_dir", "n_population", "truncation_threshold")


@dataclass(frozen=True)
class Setting:
    name: str
    good: str
    bad: str
    refusal: str


def settings_of(algorithm: str) -> list[Setting]:
    """Raises NotesError when the algorithm does not answer as the samples say."""
    samples = _SAMPLES.get(algorithm, ())
    if not samples:
        raise NotesError(f"algorithm {algorithm} has no sample settings")
    needed = {name: good for name, good, _ in samples if name in _REQUIRED}
    found = []
    for name, good, bad in samples:
        complaint = _complaint(algorithm, {**needed, name: good})
        if complaint:
            raise NotesError(f"algorithm {algorithm} refuses {name}={good}: {complaint}")
        refusal = _complaint(algorithm, {**needed, name: bad}) if bad else ""
        if bad and not refusal:
            raise NotesError(f"algorithm {algorithm} takes {name}={bad}")
        found.append(Setting(name, good, bad, refusal))
    return found


def _complaint(algorithm: str, settings: Mapping[str, str]) -> str:
    try:
        if algorithm == "medianstop":
            median_stop.validate(settings)
        else:
            load(algorithm).validate(_request(settings))
    except InvalidSettingsError as error:
        return str(error)
    return ""


def _request(settings: Mapping[str, str]) -> SearchRequest:
    bounds = {"min": "0", "max": "1", "step": "0.1"}
    names = ("rate", "decay")
    space = [{"name": name, "parameterType": "double", "feasibleSpace": bounds} for name in names]
    return SearchRequest(
        parse(space),
        minimize=True,
        settings=settings,
        parallel_trial_count=9,
        resume_policy="FromVolume",
        experiment_name="x",
    )
