"""A Katib Experiment: the spec from plain arguments, its manifest, and what its status says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from airflow_llmtune.exceptions import OutcomeError
from airflow_llmtune.resources import experiment_preflight
from airflow_llmtune.resources.algorithms import ALGORITHMS, check_algorithm
from airflow_llmtune.resources.early_stopping import EarlyStopping
from airflow_llmtune.resources.meta import Outcome, ResourceKind, condition, is_plain, metadata, path, text_of
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace, decode_number
from airflow_llmtune.resources.trial import KIND as TRIAL_KIND
from airflow_llmtune.resources.trial import metric_strategies, read_assignments, read_metrics, read_trial

__all__ = [
    "KIND",
    "TRIAL_KIND",
    "ExperimentSpec",
    "Optimum",
    "check_manifest",
    "pod_selector",
    "read_counts",
    "read_optimum",
    "read_outcome",
    "read_result",
    "read_trial",
    "search_space_of",
]

KIND = ResourceKind("kubeflow.org", "v1beta1", "Experiment", "experiments")

# Katib's StdOut collector finds names of these characters only.
_METRIC_NAME = r"[A-Za-z0-9_|-]+"
# One broken trial may be bad luck, three are a broken set-up; Katib's own default would try all of them.
_DEFAULT_MAX_FAILED = 3


# --- the spec -----------------------------------------------------------------------------------------------


class ExperimentSpec(NamedTuple):
    space: SearchSpace
    objective_metric_name: str
    objective_type: str
    objective_goal: float | None
    additional_metric_names: tuple[str, ...]
    algorithm_name: str
    algorithm_settings: Mapping[str, str]
    max_trial_count: int
    parallel_trial_count: int
    max_failed_trial_count: int
    early_stopping: EarlyStopping | None = None

    @classmethod
    def from_args(
        cls,
        *,
        parameters: SearchSpace,
        objective_metric_name: Any,
        objective_type: Any,
        objective_goal: Any = None,
        additional_metric_names: Any = (),
        algorithm_name: Any = "random",
        algorithm_settings: Any = None,
        max_trial_count: Any,
        parallel_trial_count: Any,
        max_failed_trial_count: Any = None,
        early_stopping: Any = None,
        problems: Problems,
    ) -> ExperimentSpec:
        """Note every mistake in ``problems``; the spec returned is good only when there is none."""
        metric = _read_metric_name("objective_metric_name", objective_metric_name, problems)
        type_ = problems.choice("objective_type", objective_type, ("minimize", "maximize"))
        goal = None if objective_goal is None else problems.number("objective_goal", objective_goal)
        additional = _read_additional(additional_metric_names, metric, problems)
        algorithm = problems.choice("algorithm_name", algorithm_name, ALGORITHMS)
        settings = _read_settings(algorithm_settings, problems)
        trials = problems.integer("max_trial_count", max_trial_count, at_least=1)
        parallel = problems.integer("parallel_trial_count", parallel_trial_count, at_least=1)
        failed = None
        if max_failed_trial_count is not None:
            failed = problems.integer("max_failed_trial_count", max_failed_trial_count, at_least=0)
        if trials is not None:
            _check_at_most("parallel_trial_count", parallel, trials, problems)
            _check_at_most("max_failed_trial_count", failed, trials, problems)
        if algorithm is not None:
            sound = not any(error.argument.startswith("parameters") for error in problems.errors)
            check_algorithm(algorithm, settings, parameters if sound else None, trials, parallel, problems)
        trials, parallel = trials or 1, parallel or 1
        return cls(
            space=parameters,
            objective_metric_name=metric,
            objective_type=type_ or "minimize",
            objective_goal=goal,
            additional_metric_names=additional,
            algorithm_name=algorithm or "random",
            algorithm_settings=settings,
            max_trial_count=trials,
            parallel_trial_count=parallel,
            max_failed_trial_count=min(_DEFAULT_MAX_FAILED, trials) if failed is None else failed,
            early_stopping=EarlyStopping.read(early_stopping, problems),
        )

    def to_manifest(
        self,
        name: str,
        namespace: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        trial_template: Mapping[str, Any],
        *,
        pushed: bool = False,
    ) -> dict[str, Any]:
        """``pushed``: trials report their metrics themselves; read in their output, each would count twice."""
        algorithm: dict[str, Any] = {"algorithmName": self.algorithm_name}
        if self.algorithm_settings:
            pairs = self.algorithm_settings.items()
            algorithm["algorithmSettings"] = [{"name": key, "value": value} for key, value in pairs]
        early_stopping = {} if self.early_stopping is None else {"earlyStopping": self.early_stopping.to_manifest()}
        return {
            "apiVersion": KIND.api_version,
            "kind": KIND.kind,
            "metadata": metadata(name, namespace, labels, annotations),
            "spec": {
                "parameters": self.space.to_manifest(),
                "objective": self._objective(),
                "algorithm": algorithm,
                **early_stopping,
                "maxTrialCount": self.max_trial_count,
                "parallelTrialCount": self.parallel_trial_count,
                "maxFailedTrialCount": self.max_failed_trial_count,
                "metricsCollectorSpec": {"collector": {"kind": "Push" if pushed else "StdOut"}},
                # pbt hands its populations over on the Suggestion's volume, which only FromVolume makes.
                "resumePolicy": "FromVolume" if self.algorithm_name == "pbt" else "Never",
                "trialTemplate": dict(trial_template),
            },
        }

    def _objective(self) -> dict[str, Any]:
        objective: dict[str, Any] = {
            "type": self.objective_type,
            "objectiveMetricName": self.objective_metric_name,
        }
        if self.objective_goal is not None:
            objective["goal"] = self.objective_goal
        if self.additional_metric_names:
            objective["additionalMetricNames"] = list(self.additional_metric_names)
        # The adapter that a trial saves is its last one, so the last value is the one to compare.
        names = (self.objective_metric_name, *self.additional_metric_names)
        objective["metricStrategies"] = [{"name": name, "value": "latest"} for name in names]
        return objective


def _read_metric_name(argument: str, value: Any, problems: Problems) -> str:
    if isinstance(value, str) and re.fullmatch(_METRIC_NAME, value):
        return value
    rule = "is not a metric name that Katib's log collector can find"
    problems.add(argument, value, rule, "use letters, digits, `_` and `-` only, such as eval_loss")
    return ""


def _read_additional(value: Any, objective: str, problems: Problems) -> tuple[str, ...]:
    argument = "additional_metric_names"
    if isinstance(value, str) or not isinstance(value, list | tuple):
        problems.add(argument, value, "is not a list", "give a list such as ['train_loss']")
        return ()
    names = [_read_metric_name(f"{argument}[{index}]", name, problems) for index, name in enumerate(value)]
    if objective and objective in names:
        problems.add(argument, objective, "contains the objective metric", "leave it out here")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        problems.add(argument, twice, "is listed twice", "leave one of the two out")
    return tuple(names)


def _read_settings(value: Any, problems: Problems) -> dict[str, str]:
    settings = {}
    for name, setting in problems.mapping("algorithm_settings", value).items():
        if is_plain(setting):
            settings[name] = text_of(setting)
        else:
            rule = "is not a text or a finite number"
            problems.add(f"algorithm_settings.{name}", setting, rule, "give a plain value")
    return settings


def _check_at_most(argument: str, value: int | None, trials: int, problems: Problems) -> None:
    if value is not None and value > trials:
        rule, fix = (
            f"is more than `max_trial_count`={trials}",
            f"give {trials} or less, or raise `max_trial_count`",
        )
        problems.add(argument, value, rule, fix)


def check_manifest(manifest: Any, problems: Problems) -> None:
    """Note what is wrong with a manifest that somebody else wrote; its ``metadata.name`` may be missing."""
    experiment_preflight.check(manifest, KIND, problems)


def pod_selector(name: str) -> str:
    """The pods of its trials, to which Katib's webhook copies the label, and of its suggestion's service."""
    return f"katib.kubeflow.org/experiment={name}"


# --- the status ---------------------------------------------------------------------------------------------


class Optimum(NamedTuple):
    trial: str
    assignments: Mapping[str, str]
    metrics: Mapping[str, float]
    objective: float


_COUNTERS = {
    "trials": "trials",
    "succeeded": "trialsSucceeded",
    "failed": "trialsFailed",
    "running": "trialsRunning",
    "pending": "trialsPending",
    "killed": "trialsKilled",
    "early_stopped": "trialsEarlyStopped",
    "metrics_unavailable": "trialMetricsUnavailable",  # irregular in Katib
}


def read_outcome(obj: Mapping[str, Any]) -> Outcome:
    if (failed := condition(obj, "Failed")) is not None:
        return Outcome("Failed", failed.get("reason") or "", f"{failed.get('message') or ''} ({_tell_counts(obj)})")
    if (succeeded := condition(obj, "Succeeded")) is not None:
        # Katib reports success also when not one trial gave a usable value.
        if read_optimum(obj) is None:
            metric = path(obj, "spec", "objective", "objectiveMetricName")
            message = f"No trial reported a finite value of {metric} ({_tell_counts(obj)})"
            return Outcome("Failed", "NoUsableTrial", message)
        return Outcome.of("Succeeded", succeeded)
    for type_ in ("Running", "Restarting"):
        if (held := condition(obj, type_)) is not None:
            return Outcome.of("Running", held)
    return Outcome.of("Pending", condition(obj, "Created"))


def read_counts(obj: Mapping[str, Any]) -> dict[str, int]:
    """All counters; Katib leaves out those that are zero."""
    return {key: path(obj, "status", field) or 0 for key, field in _COUNTERS.items()}


def _tell_counts(obj: Mapping[str, Any]) -> str:
    counts = read_counts(obj)
    total = counts.pop("trials")
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count)
    return f"of {total} trials: {states}" if states else "no trial has ended"


def read_optimum(obj: Mapping[str, Any]) -> Optimum | None:
    """The best trial so far, or None while there is none with a finite objective."""
    best = path(obj, "status", "currentOptimalTrial") or {}
    objective = path(obj, "spec", "objective") or {}
    metrics = read_metrics(best.get("observation"), metric_strategies(objective))
    value = metrics.get(objective.get("objectiveMetricName", ""))
    if not best.get("bestTrialName") or value is None:
        return None
    return Optimum(best["bestTrialName"], read_assignments(best.get("parameterAssignments")), metrics, value)


def read_result(
    obj: Mapping[str, Any],
    decode: Callable[[Mapping[str, str]], dict[str, Any]],
    artifact_uri: str | None,
) -> dict[str, Any]:
    """The XCom value; ``decode`` turns Katib's texts into typed parameters."""
    optimum = read_optimum(obj)
    if optimum is None:
        raise OutcomeError(f"Experiment {obj['metadata']['name']} has no trial with a finite objective")
    return {
        "parameters": decode(optimum.assignments),
        "metrics": dict(optimum.metrics),
        "trial": optimum.trial,
        "experiment": obj["metadata"]["name"],
        "namespace": obj["metadata"]["namespace"],
        "counts": read_counts(obj),
        "artifact_uri": artifact_uri,
    }


def search_space_of(obj: Mapping[str, Any]) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """A decoder by the ``parameterType`` of any Experiment; categorical values keep their text."""
    types = {entry["name"]: entry["parameterType"] for entry in path(obj, "spec", "parameters") or []}

    def decode(assignments: Mapping[str, str]) -> dict[str, Any]:
        return {name: _decode(name, types.get(name), text) for name, text in assignments.items()}

    return decode


def _decode(name: str, type_: str | None, text: str) -> int | float | str:
    return decode_number(name, type_, text) if type_ in ("int", "double", "discrete") else text
