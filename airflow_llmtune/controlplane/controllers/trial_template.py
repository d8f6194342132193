"""Rendering of a Trial's job from the Experiment's trial template, by replacing text as Katib does. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import re2
import yaml

from airflow_llmtune.controlplane.go_text import go_json, go_value

# RE2, as Go: no reference makes it go back and forth for minutes.
_METADATA = re2.compile(r"\$\{trialSpec\.(.+?)\}")
_INDEXED = re2.compile(r"(.+)\[(.+)]")
_METADATA_KEYS = ("Name", "Namespace", "Kind", "APIVersion", "Annotations", "Labels")
_MAPS = {"Annotations": "annotations", "Labels": "labels"}


class RenderError(Exception):
    """The template cannot be filled with these parameters."""


class _Yaml(yaml.SafeLoader):
    """YAML as Go's reader takes it: ``1e-05`` is a number, a date is a text."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
)


def placeholder(name: str) -> str:
    return "${trialParameters." + name + "}"


def metadata_reference(reference: str) -> tuple[str, str] | None:
    """Field and key ("" without one) of a ``${trialSpec.Field[key]}`` reference; None when it names a parameter."""
    match = _METADATA.search(reference)
    if match is None:
        return None
    indexed = _INDEXED.search(match[1])
    return (indexed[1], indexed[2]) if indexed else (match[1], "")


def is_metadata_reference(reference: str) -> bool:
    """Whether admission takes it for one: the field must be known."""
    found = metadata_reference(reference)
    return found is not None and found[0] in _METADATA_KEYS


def template_text(template: Mapping[str, Any], config_map_text: str | None) -> str:
    """Where placeholders are replaced: the JSON of an inline ``trialSpec``, else the ConfigMap's YAML."""
    if "trialSpec" in template:
        return go_json(template["trialSpec"], sort_keys=True) + "\n"
    return config_map_text or ""


def parse_template(text: str) -> dict[str, Any]:
    """A template after the replacement: its first document, which must be an object that has a kind."""
    try:
        parsed, _ = json.JSONDecoder().raw_decode(text.lstrip()) if text.lstrip().startswith("{") else (_yaml(text), 0)
    except (ValueError, yaml.YAMLError) as error:
        raise RenderError(f"failed to convert string to unstructured: {error}") from error
    if not isinstance(parsed, dict) or not is_text(parsed.get("kind")):
        raise RenderError(f"failed to convert string to unstructured: Object 'Kind' is missing in '{text}'")
    return parsed


def is_text(value: Any) -> bool:
    """Whether an object of any kind has this field: one of another type counts as absent."""
    return isinstance(value, str) and value != ""


def _yaml(text: str) -> Any:
    return next(yaml.load_all(text, Loader=_Yaml), None)


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
        reference = parameter["reference"]
        field = metadata_reference(reference)
        if field is not None:
            value = _metadata_value(original, reference, field, name, namespace)
        elif reference in values:
            value, used = values[reference], used + 1
        else:
            raise RenderError(
                "unable to find non-meta parameter from TrialParameters in ParameterAssignment: "
                f"parameter: {reference}, parameter assignment: {go_value(values)}"
            )
        text = text.replace(placeholder(parameter["name"]), value)
    if used != len(assignments):
        shown = " ".join(f"{{{one['name']} {one['value']}}}" for one in assignments)
        raise RenderError(
            "unable to find parameter from ParameterAssignment in TrialParameters: "
            f"parameter assignments: [{shown}], non-meta trial parameter count: {used}"
        )
    job = parse_template(text)
    metadata = job.get("metadata")
    own = metadata if isinstance(metadata, dict) else {}
    job["metadata"] = {**own, "name": name, "namespace": namespace}
    return job


def _metadata_value(template: dict[str, Any], reference: str, field: tuple[str, str], name: str, namespace: str) -> str:
    known = {
        "Name": name,
        "Namespace": namespace,
        "Kind": str(template.get("kind", "")),
        "APIVersion": str(template.get("apiVersion", "")),
    }
    key, index = field
    if key in known:
        return known[key]
    if key not in _MAPS:
        raise RenderError(f"illegal reference of trial metadata: {reference}")
    metadata = template.get("metadata")
    values = metadata.get(_MAPS[key]) if isinstance(metadata, dict) else None
    if not isinstance(values, dict) or index not in values:
        raise RenderError(f"illegal reference of trial metadata: {reference}; failed to fetch {key[:-1]}: {index}")
    return str(values[index])
