"""The settings of each algorithm: a value that it takes and one that it refuses, what it says when one is missing, and
which Experiments it refuses for something else; all in the words of its own check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_llmtune.controlplane.algorithms import median_stop
from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError, Parameter, parse
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
        ("acq_func", "gp_hedge", "UCB"),
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


def _space(*names: str, **more: str) -> list[Parameter]:
    bounds = {"min": "0", "max": "1", **more}
    return parse([{"name": name, "parameterType": "double", "feasibleSpace": bounds} for name in names])


_STEPPED = _space("rate", "decay", step="0.1")

# What is asked, and in which fields it differs from a request that will do; settings are added to the needed ones.
_REFUSED: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "grid": [
        ("a `double` without `step`", {"space": _space("rate")}),
        ("`maxTrialCount: 122` for two parameters of 11 values each", {"max_trial_count": 122}),
    ],
    "bayesianoptimization": [
        ("`acq_func: EIps`, or `PIps`", {"settings": {"acq_func": "EIps"}}),
        (
            "`acq_optimizer: lbfgs` with `base_estimator: RF`, or another that is not GP",
            {"settings": {"acq_optimizer": "lbfgs", "base_estimator": "RF"}},
        ),
    ],
    "cmaes": [("fewer than two parameters of type `int` or `double`", {"space": _space("rate")})],
    "hyperband": [
        (
            "`parallelTrialCount: 8` with `r_l: 9` and `eta: 3`: it must be `eta` to the power ⌊log_eta r_l⌋ or more",
            {"parallel_trial_count": 8},
        ),
    ],
    "pbt": [
        ("an `int` or `double` without `step`", {"space": _space("rate")}),
        ("any `resumePolicy` but `FromVolume`", {"resume_policy": "Never"}),
        ("`metadata.name` of 27 characters", {"experiment_name": "x" * 27}),
    ],
}


@dataclass(frozen=True)
class Setting:
    name: str
    good: str
    bad: str
    refusal: str
    missing: str
    """What is said when it is not set; empty when it need not be."""


@dataclass(frozen=True)
class RefusedRequest:
    what: str
    refusal: str
    is_taken_when_strict: bool


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
        missing = _complaint(algorithm, {other: value for other, value in needed.items() if other != name})
        if bool(missing) != (name in needed):
            raise NotesError(f"algorithm {algorithm} without {name} says {missing!r}")
        found.append(Setting(name, good, bad, refusal, missing))
    return found


def refused_requests(algorithm: str) -> list[RefusedRequest]:
    """Raises NotesError for one that is taken."""
    needed = {name: good for name, good, _ in _SAMPLES.get(algorithm, ()) if name in _REQUIRED}
    found = []
    for what, changed in _REFUSED.get(algorithm, ()):
        fields = {**changed, "settings": {**needed, **changed.get("settings", {})}}
        refusal = _complaint(algorithm, fields["settings"], fields)
        if not refusal:
            raise NotesError(f"algorithm {algorithm} takes {what}")
        strictly = _complaint(algorithm, fields["settings"], {**fields, "strict": True})
        found.append(RefusedRequest(what, refusal, not strictly))
    return found


def _complaint(algorithm: str, settings: Mapping[str, str], changed: Mapping[str, Any] | None = None) -> str:
    try:
        if algorithm == "medianstop":
            median_stop.validate(settings)
        else:
            load(algorithm).validate(replace(_request(settings), **(changed or {})))
    except InvalidSettingsError as error:
        return str(error)
    return ""


def _request(settings: Mapping[str, str]) -> SearchRequest:
    return SearchRequest(
        _STEPPED,
        minimize=True,
        settings=settings,
        parallel_trial_count=9,
        resume_policy="FromVolume",
        experiment_name="x",
    )
