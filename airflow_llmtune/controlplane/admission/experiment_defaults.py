"""What Katib's mutating webhook fills into an Experiment. Pure."""

from __future__ import annotations

from typing import Any

DEFAULT_PARALLEL_TRIAL_COUNT = 3
DEFAULT_FILE_PATH = "/var/log/katib/metrics.log"

_TRAINING_LABELS = {"training.kubeflow.org/job-role": "master"}
_TRAIN_JOB_LABELS = {
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
    "batch.kubernetes.io/job-completion-index": "0",
}
_TRAINING_KINDS = ("TFJob", "PyTorchJob", "XGBoostJob", "MPIJob")


def _condition(type_: str) -> str:
    return f'status.conditions.#(type=="{type_}")#|#(status=="True")#'


def set_defaults(spec: dict[str, Any]) -> None:
    """Change the spec in place; defaults come before validation, so they can make a short budget invalid."""
    spec.setdefault("parallelTrialCount", DEFAULT_PARALLEL_TRIAL_COUNT)
    if not spec.get("resumePolicy"):
        spec["resumePolicy"] = "Never"
    for parameter in spec.get("parameters", ()):
        space = parameter.setdefault("feasibleSpace", {})
        if not space.get("distribution"):
            space["distribution"] = "uniform"
    if "objective" in spec:
        _set_strategies(spec["objective"])
    if "trialTemplate" in spec:
        _set_conditions(spec["trialTemplate"])
    _set_collector(spec.setdefault("metricsCollectorSpec", {}))


def _set_strategies(objective: dict[str, Any]) -> None:
    default = {"minimize": "min", "maximize": "max"}.get(objective.get("type", ""), "latest")
    strategies = objective.setdefault("metricStrategies", [])
    names = [objective.get("objectiveMetricName", ""), *objective.get("additionalMetricNames", ())]
    for name in names:
        if name and all(strategy.get("name") != name for strategy in strategies):
            strategies.append({"name": name, "value": default})


def _set_conditions(template: dict[str, Any]) -> None:
    """By kind alone: the apiVersion is not looked at."""
    kind = template.get("trialSpec", {}).get("kind")
    if kind == "Job" or kind == "TrainJob":
        success, labels = "Complete", _TRAIN_JOB_LABELS if kind == "TrainJob" else None
    elif kind in _TRAINING_KINDS:
        success, labels = "Succeeded", _TRAINING_LABELS
    else:
        return
    if not template.get("successCondition"):
        template["successCondition"] = _condition(success)
    if not template.get("failureCondition"):
        template["failureCondition"] = _condition("Failed")
    if labels and not template.get("primaryPodLabels"):
        template["primaryPodLabels"] = dict(labels)


def _set_collector(collector_spec: dict[str, Any]) -> None:
    collector = collector_spec.setdefault("collector", {})
    if not collector.get("kind"):
        collector["kind"] = "StdOut"
    match collector["kind"]:
        case "File":
            path = _file_path(collector_spec)
            _fill(path, kind="File", path=DEFAULT_FILE_PATH, format="TEXT")
        case "TensorFlowEvent":
            _fill(_file_path(collector_spec), kind="Directory", path="/var/log/katib/tfevent/")
        case "PrometheusMetric":
            http_get = collector_spec.setdefault("source", {}).setdefault("httpGet", {})
            _fill(http_get, path="/metrics", port=8080)


def _file_path(collector_spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = collector_spec.setdefault("source", {}).setdefault("fileSystemPath", {})
    return found


def _fill(target: dict[str, Any], **defaults: Any) -> None:
    for name, value in defaults.items():
        if not target.get(name):
            target[name] = value
