"""What Katib's mutating webhook fills into an Experiment. Pure."""

from __future__ import annotations

from typing import Any

DEFAULT_PARALLEL_TRIAL_COUNT = 3
DEFAULT_FILE_PATH = "/var/log/katib/metrics.log"
DEFAULT_TFEVENT_PATH = "/var/log/katib/tfevent/"

_TRAINING_LABELS = {"training.kubeflow.org/job-role": "master"}
_TRAIN_JOB_LABELS = {
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
    "batch.kubernetes.io/job-completion-index": "0",
}
_TRAINING_KINDS = ("TFJob", "PyTorchJob", "XGBoostJob", "MPIJob")
_STRATEGIES = {"minimize": "min", "maximize": "max"}


def _condition(type_: str) -> str:
    return f'status.conditions.#(type=="{type_}")#|#(status=="True")#'


def set_defaults(spec: dict[str, Any]) -> None:
    """Change the spec in place; defaults come before validation, so they can make a short budget invalid."""
    spec.setdefault("parallelTrialCount", DEFAULT_PARALLEL_TRIAL_COUNT)
    spec["resumePolicy"] = spec.get("resumePolicy") or "Never"
    for parameter in spec.get("parameters", ()):
        space = parameter.setdefault("feasibleSpace", {})
        space["distribution"] = space.get("distribution") or "uniform"
    if "objective" in spec:
        _set_strategies(spec["objective"])
    if "trialTemplate" in spec:
        _set_conditions(spec["trialTemplate"])
    _set_collector(spec.setdefault("metricsCollectorSpec", {}))


def _set_strategies(objective: dict[str, Any]) -> None:
    default = _STRATEGIES.get(objective.get("type", ""), "latest")
    given = {strategy.get("name", "") for strategy in objective.get("metricStrategies", ())}
    main = objective.get("objectiveMetricName", "")
    missing = [main] if main not in given else []
    missing += [name for name in objective.get("additionalMetricNames", ()) if name not in given - {main}]
    added = [{"name": name, "value": default} for name in missing]
    objective["metricStrategies"] = [*objective.get("metricStrategies", ()), *added]


def _set_conditions(template: dict[str, Any]) -> None:
    """By kind alone: the apiVersion is not looked at."""
    kind = template.get("trialSpec", {}).get("kind")
    if kind in {"Job", "TrainJob"}:
        success, labels = "Complete", _TRAIN_JOB_LABELS if kind == "TrainJob" else None
    elif kind in _TRAINING_KINDS:
        success, labels = "Succeeded", _TRAINING_LABELS
    else:
        return
    _fill(template, successCondition=_condition(success), failureCondition=_condition("Failed"))
    if labels:
        _fill(template, primaryPodLabels=dict(labels))


def _set_collector(collector_spec: dict[str, Any]) -> None:
    # A collector without a kind stays without one, and is refused.
    kind = collector_spec.setdefault("collector", {"kind": "StdOut"}).get("kind")
    match kind:
        case "File":
            _fill(_source(collector_spec, "fileSystemPath"), kind="File", path=DEFAULT_FILE_PATH, format="TEXT")
        case "TensorFlowEvent":
            _fill(_source(collector_spec, "fileSystemPath"), kind="Directory", path=DEFAULT_TFEVENT_PATH)
        case "PrometheusMetric":
            _fill(_source(collector_spec, "httpGet"), path="/metrics", port=8080)


def _source(collector_spec: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = collector_spec.setdefault("source", {}).setdefault(part, {})
    return found


def _fill(target: dict[str, Any], **defaults: Any) -> None:
    for name, value in defaults.items():
        if not target.get(name):
            target[name] = value
