"""The validator's rules for ``spec.trialTemplate``. Pure but for the ConfigMap it may have to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

from airflow_llmtune.controlplane.admission.experiment_struct import PARAMETERS, TRIAL_PARAMETERS
from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.structs import go_struct
from airflow_llmtune.controlplane.admission.trial_job import job_mistake
from airflow_llmtune.controlplane.controllers.trial_template import (
    RenderError,
    is_metadata_reference,
    is_text,
    parse_template,
    placeholder,
    template_text,
)
from airflow_llmtune.controlplane.go_text import go_value

Object = dict[str, Any]


class TemplateSourceError(Exception):
    """The ConfigMap that holds a template is not there, or has no such entry."""


ConfigMapText = Callable[[dict[str, str]], str]
"""The template's text; raises TemplateSourceError."""

_PATH = "spec.trialTemplate"
_PARAMETERS = f"{_PATH}.trialParameters"
# RE2, as Go: no text makes it go back and forth for minutes.
_PLACEHOLDER = re2.compile(r"\$\{trialParameters\..+?\}")
_CONFIG_MAP_FIELDS = ("configMapName", "configMapNamespace", "templatePath")


def check_trial_template(spec: Object, config_map_text: ConfigMapText, errors: FieldErrors) -> None:
    template = spec.get("trialTemplate")
    if template is None:
        errors.required(_PATH, "must be specified")
        return
    if "primaryContainerName" not in template:
        errors.required(f"{_PATH}.primaryContainerName", "must be specified")
    if "successCondition" not in template or "failureCondition" not in template:
        errors.required(_PATH, "successCondition and failureCondition must be specified")
    if "trialParameters" not in template:
        errors.required(_PARAMETERS, "must be specified")
        return
    text = _source_text(template, config_map_text, errors)
    if text is not None:
        text = _check_trial_parameters(spec, template["trialParameters"], text, errors)
    if text is not None:
        _check_rendered(template["trialParameters"], text, errors)


def _source_text(template: Object, config_map_text: ConfigMapText, errors: FieldErrors) -> str | None:
    inline, config_map = "trialSpec" in template, template.get("configMap")
    either = "spec.trialTemplate.trialSpec or spec.trialTemplate.configMap"
    if not inline and config_map is None:
        errors.required(f"{_PATH}.TrialSource", f"{either} must be specified")
    elif inline and config_map is not None:
        errors.required(_PATH, f"only one of {either} can be specified")
    elif config_map is None:
        return template_text(template, None)
    elif not all(config_map.get(field) for field in _CONFIG_MAP_FIELDS):
        errors.required(f"{_PATH}.configMap", "configMapName, configMapNamespace and templatePath must be specified")
    else:
        try:
            return config_map_text(config_map)
        except TemplateSourceError as error:
            errors.invalid(_PATH, "", f"unable to parse spec.trialTemplate: {error}")
    return None


def _check_trial_parameters(spec: Object, parameters: list[Object], text: str, errors: FieldErrors) -> str | None:
    """The text with a test value for every placeholder; None when one is missing, which ends the check."""
    names: set[str] = set()
    references: set[str] = set()
    shown = f"{_PARAMETERS}: {go_struct(TRIAL_PARAMETERS, parameters)}"
    for index, parameter in enumerate(parameters):
        path = f"{_PARAMETERS}[{index}]"
        name, reference = parameter.get("name", ""), parameter.get("reference", "")
        if not name or not reference or "{" in name or "}" in name:
            detail = "name and reference must be specified and name must not contain '{' or '}'"
            errors.invalid(path, "", detail)
            continue
        if name in names:
            detail = f"parameter name {name} can't be duplicated in {shown}"
            errors.invalid(f"{path}.name", name, detail)
            continue
        if reference in references:
            detail = f"parameter reference {reference} can't be duplicated in {shown}"
            errors.invalid(f"{path}.reference", reference, detail)
            continue
        names.add(name)
        references.add(reference)
        _check_reference(path, reference, spec.get("parameters", []), errors)
        if placeholder(name) not in text:
            detail = f"parameter name: {name} in spec.trialParameters not found in spec.trialTemplate: {text}"
            errors.invalid(f"{path}.name", name, detail)
            return None
        text = text.replace(placeholder(name), "test-value")
    return text


def _check_reference(path: str, reference: str, parameters: list[Object], errors: FieldErrors) -> None:
    known = {parameter.get("name", "") for parameter in parameters}
    if known and reference not in known and not is_metadata_reference(reference):
        shown = go_struct(PARAMETERS, parameters)
        detail = f"parameter reference {reference} does not exist in spec.parameters: {shown}"
        errors.invalid(f"{path}.reference", reference, detail)


def _check_rendered(parameters: list[Object], text: str, errors: FieldErrors) -> None:
    left = _PLACEHOLDER.findall(text)
    if left:
        shown = go_struct(TRIAL_PARAMETERS, parameters)
        detail = f"parameters: {go_value(left)} in spec.trialTemplate not found in spec.trialParameters: {shown}"
        errors.invalid(_PATH, "", detail)
    try:
        job = parse_template(text)
    except RenderError:
        errors.invalid(_PATH, "", f"unable to convert spec.trialTemplate: {text} to unstructured")
        return
    metadata = job.get("metadata")
    if isinstance(metadata, dict) and (metadata.get("name") or metadata.get("namespace")):
        detail = "metadata.name and metadata.namespace in spec.trialTemplate must be omitted"
        errors.invalid(_PATH, "", detail)
    if not is_text(job.get("apiVersion")):
        errors.required(_PATH, "APIVersion and Kind in spec.trialTemplate must be specified")
    if (job.get("apiVersion"), job["kind"]) == ("batch/v1", "Job"):
        mistake = job_mistake(job)
        if mistake is not None:
            errors.invalid(_PATH, "", f"invalid spec.trialTemplate: {mistake}")
