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
from airflow_llmtune.controlplane.admission.structs import UnmarshalError, unmarshal
from airflow_llmtune.controlplane.admission.trial_template import check_trial_template
from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES
from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.controllers.experiment_status import is_completed, is_restartable

Object = dict[str, Any]
ConfigMapText = Callable[[dict[str, str]], str | None]

DEFAULTER = "defaulter.experiment.katib.kubeflow.org"
VALIDATOR = "validator.experiment.katib.kubeflow.org"
INJECTION_LABEL = "katib.kubeflow.org/metrics-collector-injection"
LONGEST_NAME = 40

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_RULE = (
    "name must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is "
    "'^[a-z]([-a-z0-9]*[a-z0-9])?)'"
)
_COUNTS = ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount")
_RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")


def default_experiment(experiment: Object) -> Object:
    """The typed object again, as the webhook re-serialises it: unknown fields of the spec are gone."""
    try:
        spec = unmarshal(EXPERIMENT_SPEC, experiment.get("spec") or {}, path="spec")
    except UnmarshalError as error:
        raise denied_by_webhook(DEFAULTER, str(error)) from error
    set_defaults(spec)
    kept = ("apiVersion", "kind", "metadata", "status")
    known: Object = {field: experiment[field] for field in kept if field in experiment}
    return {**known, "spec": spec}


def validate_experiment(
    experiment: Object, old: Object | None, namespace: Object | None, config_map_text: ConfigMapText
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


def _check_name(name: str, errors: FieldErrors) -> None:
    # Matched from the start only, as upstream; the API server's own rule covers the rest.
    if not _NAME.match(name):
        errors.invalid("metadata.name", name, _NAME_RULE)
    elif len(name) > LONGEST_NAME:
        errors.invalid("metadata.name", name, f"must be less than or equal to {LONGEST_NAME} characters")


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
        errors.invalid("spec.resumePolicy", old["spec"].get("resumePolicy"), detail)
    most = spec.get("maxTrialCount")
    if most is not None and most <= old.get("status", {}).get("trials", 0):
        errors.invalid("spec.maxTrialCount", most, "must be greater than status.trials count")
    if _without_counts(spec) != _without_counts(old["spec"]):
        detail = "only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable"
        errors.forbidden("spec", detail)


def _without_counts(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if name not in _COUNTS}


def _check_objective(objective: Object | None, errors: FieldErrors) -> bool:
    """Whether the rest is worth checking; upstream stops at a bad objective."""
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
        errors.invalid(f"{path}.additionalMetricNames", additional, f"should not contain {main}")
    return len(errors) == before


def _check_algorithm(algorithm: Object | None, errors: FieldErrors) -> None:
    path = "spec.algorithm"
    if algorithm is None:
        errors.required(path, "must be specified")
        return
    name = algorithm.get("algorithmName", "")
    if not name:
        errors.required(f"{path}.algorithmName", "must be specified")
    elif name not in ALGORITHM_NAMES:
        detail = (
            f"unable to get Suggestion config data for algorithm {name}: failed to find suggestion config "
            f"for algorithm: {name} in ConfigMap: katib-config"
        )
        errors.invalid(f"{path}.algorithmName", name, detail)


def _check_early_stopping(early_stopping: Object | None, errors: FieldErrors) -> None:
    if early_stopping is None:
        return
    path, name = "spec.earlyStopping.algorithmName", early_stopping.get("algorithmName", "")
    if not name:
        errors.required(path, "must be specified")
        return
    detail = (
        f"unable to get EarlyStopping config data for algorithm {name}: failed to find early stopping "
        f"config for algorithm: {name} in ConfigMap: katib-config"
    )
    errors.invalid(path, name, detail)
