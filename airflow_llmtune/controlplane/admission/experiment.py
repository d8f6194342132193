"""Katib's Experiment webhooks: the defaulter with its typed reading, and the validator's general part."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission.experiment_defaults import set_defaults
from airflow_llmtune.controlplane.admission.experiment_struct import EXPERIMENT_SPEC
from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.metrics_collector_spec import check_metrics_collector
from airflow_llmtune.controlplane.admission.parameters import check_parameters
from airflow_llmtune.controlplane.admission.structs import UnmarshalError, unmarshal, without_zero_values
from airflow_llmtune.controlplane.admission.trial_template import ConfigMapText, check_trial_template
from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES, EARLY_STOPPING_NAMES, REFUSED_ALGORITHMS
from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.controllers.experiment_status import is_completed, is_restartable
from airflow_llmtune.controlplane.controllers.trial_template import is_text
from airflow_llmtune.controlplane.go_text import go_json

Object = dict[str, Any]
VolumeExists = Callable[[str], bool]
"""Whether there is a PersistentVolume of that name."""

DEFAULTER = "defaulter.experiment.katib.kubeflow.org"
VALIDATOR = "validator.experiment.katib.kubeflow.org"
INJECTION_LABEL = "katib.kubeflow.org/metrics-collector-injection"
LONGEST_NAME = 40

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_RULE = (
    "name must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is "
    "'^[a-z]([-a-z0-9]*[a-z0-9])?)') and may not be longer than 40 characters. "
)
_COUNTS = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")
_RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")


def default_experiment(experiment: Object) -> Object:
    """The typed object again, as the webhook re-serialises it: unknown fields and empty values of the spec are gone."""
    try:
        _check_trial_kind(experiment)
        spec = unmarshal(EXPERIMENT_SPEC, experiment.get("spec") or {}, path="spec")
    except UnmarshalError as error:
        raise denied_by_webhook(DEFAULTER, str(error)) from error
    spec = without_zero_values(EXPERIMENT_SPEC, spec)
    set_defaults(spec)
    kept = ("apiVersion", "kind", "metadata", "status")
    known: Object = {field: experiment[field] for field in kept if field in experiment}
    return {**known, "spec": without_zero_values(EXPERIMENT_SPEC, spec)}


def _check_trial_kind(experiment: Object) -> None:
    """An object of any kind is read by a reader of its own, which wants to know the kind."""
    found: Any = experiment
    for field in ("spec", "trialTemplate", "trialSpec"):
        found = found.get(field) if isinstance(found, dict) else None
    if isinstance(found, dict) and not is_text(found.get("kind")):
        raise UnmarshalError(f"Object 'Kind' is missing in '{go_json(found, sort_keys=True)}'")


def validate_experiment(
    experiment: Object,
    old: Object | None,
    namespace: Object | None,
    config_map_text: ConfigMapText,
    volume_exists: VolumeExists,
) -> None:
    """Raise the 400 answer with all mistakes."""
    metadata, spec = experiment["metadata"], experiment["spec"]
    labels = (namespace or {}).get("metadata", {}).get("labels", {})
    if labels.get(INJECTION_LABEL) != "enabled":
        text = (
            f'Cannot create the Experiment "{metadata["name"]}" in namespace "{metadata["namespace"]}": '
            f'the namespace lacks label "{INJECTION_LABEL}: enabled"'
        )
        raise denied_by_webhook(VALIDATOR, text)
    errors = FieldErrors()
    _check_name(metadata["name"], errors)
    _check_counts(spec, errors)
    if old is not None and old["spec"] != spec:
        _check_update(spec, old, errors)
    # Upstream stops at a bad objective.
    if _check_objective(spec.get("objective"), errors):
        _check_algorithm(spec.get("algorithm"), errors)
        _check_early_stopping(spec.get("earlyStopping"), errors)
        if spec["resumePolicy"] not in _RESUME_POLICIES:
            errors.invalid("spec.resumePolicy", spec["resumePolicy"], "invalid ResumePolicyType")
        check_trial_template(spec, config_map_text, errors)
        check_parameters(spec, errors)
        check_metrics_collector(spec["metricsCollectorSpec"], errors)
    if errors:
        raise denied_by_webhook(VALIDATOR, str(errors))
    if old is None and spec["resumePolicy"] == "FromVolume":
        _check_volume(metadata, spec, volume_exists)


def _check_name(name: str, errors: FieldErrors) -> None:
    # Matched from the start only, as upstream; the API server's own rule covers the rest.
    if not _NAME.match(name) or len(name) > LONGEST_NAME:
        errors.invalid("metadata.name", name, _NAME_RULE)


def _check_counts(spec: Object, errors: FieldErrors) -> None:
    parallel, most, failed = spec["parallelTrialCount"], spec.get("maxTrialCount"), spec.get("maxFailedTrialCount")
    if failed is not None and failed < 0:
        errors.invalid("spec.maxFailedTrialCount", failed, "should not be less than 0")
    if most is not None and most <= 0:
        errors.invalid("spec.maxTrialCount", most, "must be greater than 0")
    if parallel <= 0:
        errors.invalid("spec.parallelTrialCount", parallel, "must be greater than 0")
    if most is None:
        return
    for name, value in (("maxFailedTrialCount", failed), ("parallelTrialCount", parallel)):
        if value is not None and value > most:
            errors.invalid(f"spec.{name}", value, "should be less than or equal to spec.maxTrialCount")


def _check_update(spec: Object, old: Object, errors: FieldErrors) -> None:
    if is_completed(old) and not is_restartable(old):
        detail = (
            "Experiment can be restarted if it is in succeeded state by reaching max trials and "
            "spec.resumePolicy = LongRunning or spec.resumePolicy = FromVolume, when experiment is completed"
        )
        errors.invalid("spec.resumePolicy", spec["resumePolicy"], detail)
    most = spec.get("maxTrialCount")
    if most is not None and most <= old.get("status", {}).get("trials", 0):
        errors.invalid("spec.maxTrialCount", most, "must be greater than status.trials count")
    if _without_counts(spec) != _without_counts(old["spec"]):
        detail = "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable"
        errors.forbidden("spec", detail)


def _without_counts(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if name not in _COUNTS}


def _check_objective(objective: Object | None, errors: FieldErrors) -> bool:
    """Whether the rest is worth checking."""
    path = "spec.objective"
    before = len(errors)
    if objective is None:
        errors.required(path, "must be specified")
        return False
    main, additional = objective.get("objectiveMetricName", ""), objective.get("additionalMetricNames", [])
    if objective.get("type") not in {"minimize", "maximize"}:
        errors.invalid(f"{path}.type", objective.get("type", ""), "must be minimize or maximize")
    if not main:
        errors.required(f"{path}.objectiveMetricName", "must be specified")
    if main in additional:
        detail = "should not contain spec.objective.objectiveMetricName"
        errors.invalid(f"{path}.additionalMetricNames", additional, detail)
    return len(errors) == before


def _check_algorithm(algorithm: Object | None, errors: FieldErrors) -> None:
    path = "spec.algorithm"
    if algorithm is None:
        errors.required(path, "must be specified")
        return
    name = algorithm.get("algorithmName", "")
    if name in REFUSED_ALGORITHMS:
        errors.invalid(f"{path}.algorithmName", name, REFUSED_ALGORITHMS[name])
    elif name not in ALGORITHM_NAMES:
        _refuse_algorithm(path, name, "Suggestion", "suggestion", errors)


def _check_early_stopping(early_stopping: Object | None, errors: FieldErrors) -> None:
    if early_stopping is None:
        return
    name = early_stopping.get("algorithmName", "")
    if name not in EARLY_STOPPING_NAMES:
        _refuse_algorithm("spec.earlyStopping", name, "EarlyStopping", "early stopping", errors)


def _refuse_algorithm(path: str, name: str, service: str, config: str, errors: FieldErrors) -> None:
    if not name:
        errors.required(f"{path}.algorithmName", "must be specified")
    detail = (
        f"unable to get {service} config data for algorithm {name}: failed to find {config} config "
        f"for algorithm: {name} in ConfigMap: katib-config"
    )
    errors.invalid(f"{path}.algorithmName", name, detail)


def _check_volume(metadata: Object, spec: Object, volume_exists: VolumeExists) -> None:
    """A search that goes on from a volume must not find the one of an earlier Experiment of that name."""
    name, namespace = metadata["name"], metadata["namespace"]
    volume = f"{name}-{spec['algorithm']['algorithmName']}-{namespace}"
    if volume_exists(volume):
        text = f"Cannot create the Experiment: {name} in namespace: {namespace}, PV: {volume} is not deleted"
        raise denied_by_webhook(VALIDATOR, text)
