"""The words that schemas of custom resources are written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
QUANTITY: Schema = {
    "x-kubernetes-int-or-string": True,
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
}


def object_of(properties: Schema, required: Sequence[str] = (), *, is_open: bool = False) -> Schema:
    made = {"type": "object", "properties": properties, "required": list(required)}
    return {**made, "x-kubernetes-preserve-unknown-fields": True} if is_open else made


def list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def map_of(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def choice(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def fields(schema: Schema, names: str) -> Schema:
    """Several properties of one type, their names in one text."""
    return dict.fromkeys(names.split(), schema)
