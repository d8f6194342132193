"""Preflight of any Experiment manifest: what Katib would refuse, and what it would accept and never finish.

Katib's webhook tells some mistakes in its own words; others pass it and leave the Experiment in ``Created``
or its trials failing for ever. Here all come at once, before anything is created.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_llmtune.resources.header import check_header, check_metadata
from airflow_llmtune.resources.meta import MAX_NAME_LENGTH, ResourceKind, finite, path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.shape import has_shape

__all__ = ["check"]

_PLACEHOLDER = r"\$\{trialParameters\.([^{}]*)\}"
_METADATA_REFERENCE = r"\$\{trialSpec\.(Name|Namespace|Kind|APIVersion|(Annotations|Labels)\[.+\])\}"
_RANGES = ("int", "double")
_LISTS = ("categorical", "discrete")
_DEFAULT_PARALLEL = 3
_COLLECTORS = ("StdOut", "File", "TensorFlowEvent", "PrometheusMetric", "Custom", "Push")
# Katib fills in successCondition and failureCondition for these kinds, and for no other.
_KINDS_WITH_CONDITIONS = ("Job", "TFJob", "PyTorchJob", "XGBoostJob", "MPIJob", "TrainJob")

# Types of the fields that are looked at below; Katib refuses other types while it reads the manifest.
_NUMBERS = {"maxTrialCount": int, "parallelTrialCount": int, "maxFailedTrialCount": int}
_OBJECTIVE = {"type": str, "goal": float, "objectiveMetricName": str, "additionalMetricNames": [str]}
_SPACE = {"min": str, "max": str, "step": str, "list": [str], "distribution": str}
_PARAMETERS = [{"name": str, "parameterType": str, "feasibleSpace": _SPACE}]
_TEMPLATE = {
    "primaryContainerName": str,
    "trialParameters": [{"name": str, "reference": str}],
    "configMap": dict,
    "trialSpec": {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict},
}


def check(manifest: Any, kind: ResourceKind, problems: Problems) -> None:
    spec = path(manifest, "spec")
    if not isinstance(spec, Mapping):
        problems.add("spec", spec, "is missing", f"give a whole {kind.kind} manifest")
        return
    check_header(manifest, kind, MAX_NAME_LENGTH, problems)
    if has_shape("spec.objective", spec.get("objective"), _OBJECTIVE, problems):
        _check_objective(spec.get("objective") or {}, problems)
    if not path(spec, "algorithm", "algorithmName"):
        _missing("spec.algorithm.algorithmName", problems, "name an algorithm such as random or tpe")
    if has_shape("spec", {key: spec.get(key) for key in _NUMBERS}, _NUMBERS, problems):
        _check_counts(spec, problems)
    names = None
    if has_shape("spec.parameters", spec.get("parameters"), _PARAMETERS, problems):
        names = _check_parameters(spec, problems)
    collector = path(spec, "metricsCollectorSpec", "collector", "kind")
    if collector is not None:
        problems.choice("spec.metricsCollectorSpec.collector.kind", collector, _COLLECTORS)
    template = spec.get("trialTemplate")
    if template is None:
        _missing("spec.trialTemplate", problems, "give the job that runs one trial")
    elif has_shape("spec.trialTemplate", template, _TEMPLATE, problems):
        _check_template(template, names, problems)


def _missing(argument: str, problems: Problems, fix: str) -> None:
    problems.add(argument, None, "is missing", fix)


def _check_objective(objective: Mapping[str, Any], problems: Problems) -> None:
    problems.choice("spec.objective.type", objective.get("type"), ("minimize", "maximize"))
    metric = objective.get("objectiveMetricName")
    if not metric:
        _missing("spec.objective.objectiveMetricName", problems, "name the metric that the trials report")
    elif metric in (objective.get("additionalMetricNames") or []):
        argument = "spec.objective.additionalMetricNames"
        problems.add(argument, metric, "contains the objective metric", "leave it out there")


def _check_counts(spec: Mapping[str, Any], problems: Problems) -> None:
    trials, parallel, failed = (spec.get(key) for key in _NUMBERS)
    for key, count, least in zip(_NUMBERS, (trials, parallel, failed), (1, 1, 0), strict=True):
        if count is not None and count < least:
            problems.add(f"spec.{key}", count, f"is less than {least}", f"give {least} or more")
        elif count is not None and trials is not None and count > trials:
            rule = f"is more than `spec.maxTrialCount`={trials}"
            problems.add(f"spec.{key}", count, rule, f"give {trials} or less")
    if parallel is None and trials is not None and trials < _DEFAULT_PARALLEL:
        rule = f"is missing, and Katib's default {_DEFAULT_PARALLEL} is more than `spec.maxTrialCount`={trials}"
        problems.add("spec.parallelTrialCount", None, rule, f"give {trials} or less")


# --- parameters -------------------------------------------------------------------------------------------


def _check_parameters(spec: Mapping[str, Any], problems: Problems) -> set[str]:
    parameters = spec.get("parameters") or []
    if bool(parameters) == bool(spec.get("nasConfig")):
        fix = "give exactly one of the two"
        problems.add("spec.parameters", spec.get("parameters"), "and spec.nasConfig exclude one another", fix)
    names: set[str] = set()
    for index, entry in enumerate(parameters):
        where = f"spec.parameters[{index}]"
        name = entry.get("name")
        if not name:
            _missing(f"{where}.name", problems, "give the parameter a name")
        elif name in names:
            problems.add(f"{where}.name", name, "is listed twice", "give each parameter once")
        names.add(name or "")
        type_ = problems.choice(f"{where}.parameterType", entry.get("parameterType"), (*_RANGES, *_LISTS))
        if type_ is not None:
            _check_space(f"{where}.feasibleSpace", type_, entry.get("feasibleSpace") or {}, problems)
    return names - {""}


def _check_space(where: str, type_: str, space: Mapping[str, Any], problems: Problems) -> None:
    wanted, unwanted = (("min", "max"), ("list",)) if type_ in _RANGES else (("list",), ("min", "max", "step"))
    for key in unwanted:
        if space.get(key):
            problems.add(f"{where}.{key}", space[key], f"does not belong to type {type_}", "leave it out")
    for key in wanted:
        if not space.get(key):
            rule = f"is missing; type {type_} needs it"
            problems.add(f"{where}.{key}", space.get(key), rule, "give a value")
    texts = [(key, space[key]) for key in ("min", "max", "step") if space.get(key)]
    texts += [(f"list[{index}]", value) for index, value in enumerate(space.get("list") or [])]
    for key, value in texts:
        if type_ != "categorical" and finite(value) is None:
            problems.add(f"{where}.{key}", value, "is not a finite number", "give a number in quotes")
    if type_ in _RANGES:
        _check_range(where, space, problems)


def _check_range(where: str, space: Mapping[str, Any], problems: Problems) -> None:
    low, high, step = (finite(space.get(key)) for key in ("min", "max", "step"))
    if low is not None and high is not None and low >= high:
        problems.add(f"{where}.min", space["min"], f"is not less than max={space['max']}", "give min < max")
    if step is not None and step <= 0:
        problems.add(f"{where}.step", space["step"], "is not above 0", "give a step > 0, or leave it out")
    if low is not None and low <= 0 and space.get("distribution") in ("logUniform", "logNormal"):
        rule = f"must be above 0 for the distribution {space['distribution']}"
        problems.add(f"{where}.min", space["min"], rule, "give min > 0, or leave out the distribution")


# --- trial template ---------------------------------------------------------------------------------------


def _check_template(template: Mapping[str, Any], names: set[str] | None, problems: Problems) -> None:
    """``names`` are the parameters; None when they are too wrong to compare with."""
    where = "spec.trialTemplate"
    spec, config_map = template.get("trialSpec"), template.get("configMap")
    if (spec is None) == (config_map is None):
        rule = "and configMap exclude one another"
        problems.add(f"{where}.trialSpec", spec, rule, "give exactly one of the two")
    container = template.get("primaryContainerName")
    if not container:
        _missing(f"{where}.primaryContainerName", problems, "name the container that trains")
    kind = path(spec, "kind")
    if kind not in _KINDS_WITH_CONDITIONS:
        for key in ("successCondition", "failureCondition"):
            if not template.get(key):
                rule = f"is missing, and Katib has no default for {kind or 'a ConfigMap template'}"
                problems.add(f"{where}.{key}", None, rule, "give a GJSON path into the job's status")
    declared = _check_trial_parameters(template.get("trialParameters") or [], names, problems)
    if spec is not None:
        _check_trial_spec(spec, declared, container, problems)


def _check_trial_parameters(entries: list[Any], names: set[str] | None, problems: Problems) -> set[str]:
    """The declared names. Katib creates no trial at all while a parameter is consumed by none of them."""
    declared: set[str] = set()
    references: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"spec.trialTemplate.trialParameters[{index}]"
        name, reference = entry.get("name") or "", entry.get("reference") or ""
        if not name or "{" in name or "}" in name:
            problems.add(f"{where}.name", name, "is empty or contains a brace", "give a plain name")
        if names is not None and reference not in names and not re.fullmatch(_METADATA_REFERENCE, reference):
            rule = "is neither a parameter of spec.parameters nor ${trialSpec.Name} or the like"
            problems.add(f"{where}.reference", reference, rule, "give the parameter's name")
        for key, value, seen in (("name", name, declared), ("reference", reference, references)):
            if value in seen:
                problems.add(f"{where}.{key}", value, "is listed twice", "give each once")
            seen.add(value)
    for name in sorted((names or set()) - references):
        rule = "is consumed by no entry of spec.trialTemplate.trialParameters, so that Katib creates no trial"
        problems.add("spec.parameters", name, rule, f"add a trialParameter with reference: {name}")
    return declared


def _check_trial_spec(spec: Mapping[str, Any], declared: set[str], container: Any, problems: Problems) -> None:
    where = "spec.trialTemplate.trialSpec"
    for key in ("apiVersion", "kind"):
        if not spec.get(key):
            _missing(f"{where}.{key}", problems, "say what kind of job runs a trial")
    check_metadata(f"{where}.metadata", spec.get("metadata"), problems)
    for key in ("name", "namespace"):
        if path(spec, "metadata", key):
            problems.add(f"{where}.metadata.{key}", spec["metadata"][key], "is set by Katib", "leave it out")
    used = set(re.findall(_PLACEHOLDER, json.dumps(spec, default=str)))
    for name in sorted(declared - used):
        rule = "is declared, but ${trialParameters." + name + "} is not in the trialSpec"
        problems.add("spec.trialTemplate.trialParameters", name, rule, "use it, or leave the entry out")
    for name in sorted(used - declared):
        rule = "is in the trialSpec, but not declared in spec.trialTemplate.trialParameters"
        problems.add(where, "${trialParameters." + name + "}", rule, "declare it, or mend its name")
    names = list(_container_names(spec))
    if container and names and container not in names:
        listed = ", ".join(name for name in names if isinstance(name, str))
        rule = f"is the name of no container of the trialSpec ({listed})"
        problems.add("spec.trialTemplate.primaryContainerName", container, rule, "name one of them")


def _container_names(spec: Mapping[str, Any]) -> Iterator[Any]:
    """Names of the containers in the kinds whose shape we know; none for others."""
    roles: Any = [path(spec, "spec")] if spec.get("kind") == "Job" else []
    if spec.get("kind") == "PyTorchJob":
        roles = path(spec, "spec", "pytorchReplicaSpecs")
        roles = roles.values() if isinstance(roles, Mapping) else []
    for role in roles:
        containers = path(role, "template", "spec", "containers")
        yield from (path(entry, "name") for entry in (containers if isinstance(containers, list) else []))
