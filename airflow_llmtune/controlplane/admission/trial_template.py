"""The validator's rules for ``spec.trialTemplate``. Pure but for the ConfigMap it may have to read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.job_struct import JOB
from airflow_llmtune.controlplane.admission.structs import UnmarshalError, unmarshal
from airflow_llmtune.controlplane.apiserver.kinds import JOB as JOB_KIND
from airflow_llmtune.controlplane.apiserver.kinds import PYTORCH_JOB
from airflow_llmtune.controlplane.controllers.trial_template import (
    RenderError,
    metadata_reference,
    parse_template,
    placeholder,
    template_text,
)

Object = dict[str, Any]

TRIAL_KINDS = (JOB_KIND, PYTORCH_JOB)

_PATH = "spec.trialTemplate"
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.(.+?)\}")
_CONFIG_MAP_FIELDS = ("configMapName", "configMapNamespace", "templatePath")


def check_trial_template(
    spec: Object, config_map_text: Callable[[dict[str, str]], str | None], errors: FieldErrors
) -> None:
    template = spec.get("trialTemplate")
    if template is None:
        errors.required(_PATH, "must be specified")
        return
    if not template.get("primaryContainerName"):
        errors.required(f"{_PATH}.primaryContainerName", "must be specified")
    if not template.get("successCondition") or not template.get("failureCondition"):
        errors.required(_PATH, "successCondition and failureCondition must be specified")
    if template.get("trialParameters") is None:
        errors.required(f"{_PATH}.trialParameters", "must be specified")
        return
    text = _source_text(template, config_map_text, errors)
    if text is not None:
        text = _check_trial_parameters(spec, template, text, errors)
        _check_rendered(text, errors)


def _source_text(
    template: Object, config_map_text: Callable[[dict[str, str]], str | None], errors: FieldErrors
) -> str | None:
    inline, config_map = "trialSpec" in template, template.get("configMap")
    if inline and config_map is not None:
        errors.required(
            _PATH, "only one of spec.trialTemplate.trialSpec or spec.trialTemplate.configMap can be specified"
        )
        return None
    if inline:
        return template_text(template, None)
    if config_map is None:
        errors.required(_PATH, "spec.trialTemplate.trialSpec or spec.trialTemplate.configMap must be specified")
        return None
    if not all(config_map.get(field) for field in _CONFIG_MAP_FIELDS):
        detail = "configMapName, configMapNamespace and templatePath must be specified"
        errors.required(f"{_PATH}.configMap", detail)
        return None
    text = config_map_text(config_map)
    if text is None:
        where = f"{config_map['configMapNamespace']}/{config_map['configMapName']}"
        path = config_map["templatePath"]
        detail = f"unable to parse spec.trialTemplate: template {path} is not found in ConfigMap {where}"
        errors.invalid(_PATH, "", detail)
    return text


def _check_trial_parameters(spec: Object, template: Object, text: str, errors: FieldErrors) -> str:
    """The text with a test value for every placeholder."""
    known = {parameter.get("name") for parameter in spec.get("parameters", ())}
    names: set[str] = set()
    references: set[str] = set()
    for index, parameter in enumerate(template["trialParameters"]):
        path = f"{_PATH}.trialParameters[{index}]"
        name, reference = parameter.get("name", ""), parameter.get("reference", "")
        _check_words(path, name, reference, errors)
        if name in names:
            errors.invalid(f"{path}.name", name, f"parameter name {name} can't be duplicated")
        if reference in references:
            errors.invalid(f"{path}.reference", reference, f"parameter reference {reference} can't be duplicated")
        if known and reference and reference not in known and metadata_reference(reference) is None:
            detail = f"parameter reference {reference} does not exist in spec.parameters: {sorted(map(str, known))}"
            errors.invalid(f"{path}.reference", reference, detail)
        if placeholder(name) not in text:
            errors.invalid(f"{path}.name", name, f"parameter name: {name} does not exist in the trial template")
        names.add(name)
        references.add(reference)
        text = text.replace(placeholder(name), "test-value")
    return text


def _check_words(path: str, name: str, reference: str, errors: FieldErrors) -> None:
    if not name or "{" in name or "}" in name:
        errors.invalid(f"{path}.name", name, "name must be specified and can't contain { or }")
    if not reference:
        errors.required(f"{path}.reference", "must be specified")


def _check_rendered(text: str, errors: FieldErrors) -> None:
    left = sorted(set(_PLACEHOLDER.findall(text)))
    if left:
        detail = f"parameters: {left} in spec.trialTemplate not found in spec.trialTemplate.trialParameters"
        errors.invalid(_PATH, "", detail)
        return
    try:
        job = parse_template(text)
    except RenderError as error:
        errors.invalid(_PATH, "", f"unable to convert: {error}")
        return
    metadata = job.get("metadata") or {}
    if not isinstance(metadata, dict):
        errors.invalid(f"{_PATH}.trialSpec.metadata", metadata, "must be an object")
        return
    for field in ("name", "namespace"):
        if metadata.get(field):
            errors.invalid(f"{_PATH}.trialSpec.metadata.{field}", metadata[field], f"metadata.{field} must be omitted")
    if not job.get("apiVersion") or not job.get("kind"):
        errors.required(f"{_PATH}.trialSpec", "APIVersion and Kind must be specified")
        return
    _check_kind(job, errors)


def _check_kind(job: Object, errors: FieldErrors) -> None:
    """Differs from Katib: a kind that cannot be run is refused here, not by a Trial that fails for ever."""
    kind = next((one for one in TRIAL_KINDS if (one.api_version, one.name) == (job["apiVersion"], job["kind"])), None)
    if kind is None:
        known = " and ".join(f"{one.api_version} {one.name}" for one in TRIAL_KINDS)
        detail = f'no matches for kind "{job["kind"]}" in version "{job["apiVersion"]}"; trials can be {known}'
        errors.invalid(f"{_PATH}.trialSpec", job["kind"], detail)
    elif kind is JOB_KIND:
        try:
            unmarshal(JOB, job, strict=True)
        except UnmarshalError as error:
            errors.invalid(_PATH, "", f"unable to convert spec.trialTemplate to batch/v1, Kind=Job: {error}")
