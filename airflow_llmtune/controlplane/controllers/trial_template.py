"""Rendering of a Trial's job from the Experiment's trial template, by replacing text as Katib does. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_METADATA = re.compile(r"\$\{trialSpec\.(?P<field>[A-Za-z]+)(?:\[(?P<key>.+)\])?\}")
_FIELDS = {"Name", "Namespace", "Kind", "APIVersion"}
_MAPS = {"Annotations": "annotations", "Labels": "labels"}


class RenderError(Exception):
    """The template cannot be filled with these parameters."""


def placeholder(name: str) -> str:
    return "${trialParameters." + name + "}"


def metadata_reference(reference: str) -> tuple[str, str | None] | None:
    """Field and key of a ``${trialSpec.Field[key]}`` reference; None when it names a parameter."""
    match = _METADATA.fullmatch(reference)
    if match is None:
        return None
    field, key = match["field"], match["key"]
    known = (field in _FIELDS and key is None) or (field in _MAPS and key is not None)
    return (field, key) if known else None


def template_text(template: Mapping[str, Any], config_map_text: str | None) -> str:
    """Where placeholders are replaced: the JSON of an inline ``trialSpec``, else the ConfigMap's YAML."""
    if "trialSpec" in template:
        return json.dumps(template["trialSpec"], ensure_ascii=False)
    return config_map_text or ""


def parse_template(text: str) -> dict[str, Any]:
    """A template after the replacement; JSON is tried first since it is what an inline template is."""
    try:
        parsed = json.loads(text)
    except ValueError:
        try:
            parsed = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RenderError(f"unable to parse the trial template: {error}") from error
    if not isinstance(parsed, dict):
        raise RenderError("the trial template is not an object")
    return parsed


def render(
    template: Mapping[str, Any],
    text: str,
    assignments: Sequence[Mapping[str, str]],
    name: str,
    namespace: str,
) -> dict[str, Any]:
    """The job of one Trial. A number put into an inline template stays a text, as upstream."""
    values = {assignment["name"]: assignment["value"] for assignment in assignments}
    original = parse_template(text)
    used = 0
    for parameter in template["trialParameters"]:
        field = metadata_reference(parameter["reference"])
        if field is not None:
            value = _metadata_value(original, field, name, namespace)
        elif parameter["reference"] in values:
            value, used = values[parameter["reference"]], used + 1
        else:
            raise RenderError(f"unable to find parameter: {parameter['reference']} in parameter assignment {values}")
        text = text.replace(placeholder(parameter["name"]), value)
    if used != len(values):
        raise RenderError("unable to find parameter from ParameterAssignment in TrialParameters")
    job = parse_template(text)
    job["metadata"] = {**(job.get("metadata") or {}), "name": name, "namespace": namespace}
    return job


def _metadata_value(template: dict[str, Any], field: tuple[str, str | None], name: str, namespace: str) -> str:
    match field:
        case ("Name", None):
            return name
        case ("Namespace", None):
            return namespace
        case ("Kind", None):
            return str(template["kind"])
        case ("APIVersion", None):
            return str(template["apiVersion"])
        case (collection, key):
            values = template.get("metadata", {}).get(_MAPS[collection], {})
            if key not in values:
                raise RenderError(f"illegal reference of trial metadata: {collection}[{key}] is not there")
            return str(values[key])
