"""The fields of ``CustomResourceDefinition.spec`` and their types, as a schema: what is stored can be relied on."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.apiserver.structural import Schema

_ANY: Schema = {}
_TEXT: Schema = {"type": "string"}
_BOOL: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_LABEL: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _choice(*texts: str) -> Schema:
    return {"type": "string", "enum": texts}


# A schema is described in terms of itself: the circle is closed below.
_VALUE_SCHEMA: dict[str, Any] = {"type": "object"}
_VALUE_SCHEMA["properties"] = {
    "type": _choice("array", "boolean", "integer", "number", "object", "string"),
    **dict.fromkeys(("description", "format", "pattern", "title"), _TEXT),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum", "nullable", "uniqueItems"), _BOOL),
    **dict.fromkeys(("maximum", "minimum", "multipleOf"), _NUMBER),
    **{f"{word}{what}": _COUNT for word in ("max", "min") for what in ("Items", "Length", "Properties")},
    "enum": _list(_ANY),
    "required": _list(_TEXT),
    "properties": _map(_VALUE_SCHEMA),
    "additionalProperties": {"anyOf": [_BOOL, _VALUE_SCHEMA]},
    **dict.fromkeys(("items", "not"), _VALUE_SCHEMA),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _list(_VALUE_SCHEMA)),
    "x-kubernetes-embedded-resource": _BOOL,
    "x-kubernetes-int-or-string": _BOOL,
    "x-kubernetes-list-map-keys": _list(_TEXT),
    "x-kubernetes-list-type": _choice("atomic", "map", "set"),
    "x-kubernetes-map-type": _choice("atomic", "granular"),
    "x-kubernetes-preserve-unknown-fields": _BOOL,
}

_COLUMN = _object(
    "name",
    "type",
    "jsonPath",
    name=_TEXT,
    type=_choice("boolean", "date", "integer", "number", "string"),
    jsonPath=_TEXT,
    description=_TEXT,
    format=_TEXT,
    priority={"type": "integer"},
)

_VERSION = _object(
    "name",
    "schema",
    name=_LABEL,
    served=_BOOL,
    storage=_BOOL,
    deprecated=_BOOL,
    deprecationWarning=_TEXT,
    schema=_object("openAPIV3Schema", openAPIV3Schema=_VALUE_SCHEMA),
    subresources=_object(status={"type": "object"}, scale={"type": "object"}),
    additionalPrinterColumns=_list(_COLUMN),
    selectableFields=_list(_object("jsonPath", jsonPath=_TEXT)),
)

DEFINITION_SPEC = _object(
    "group",
    "names",
    "scope",
    "versions",
    group=_TEXT,
    names=_object(
        "kind",
        "plural",
        kind={"type": "string", "pattern": "^[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?$", "maxLength": 63},
        listKind=_TEXT,
        plural=_LABEL,
        singular=_LABEL,
        shortNames=_list(_LABEL),
        categories=_list(_LABEL),
    ),
    scope=_choice("Cluster", "Namespaced"),
    versions={**_list(_VERSION), "minItems": 1},
    conversion=_object(strategy=_choice("None")),
)
