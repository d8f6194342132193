"""The OpenAPI schema of what a Go struct reads."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.structs import FieldType, ListOf, MapOf, Named, Struct

Schema = dict[str, Any]

_SCALARS: dict[str, Schema] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float64": {"type": "number", "format": "double"},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}


def schema_of(type_: FieldType) -> Schema:
    match type_:
        case Struct(name=name, fields=fields):
            properties = {field: schema_of(one) for field, one in fields.items()}
            return {"type": "object", "description": f"{name.split('.')[-1]}.", "properties": properties}
        case ListOf(item=item):
            return {"type": "array", "items": schema_of(item)}
        case MapOf(value=value):
            return {"type": "object", "additionalProperties": schema_of(value)}
        case Named(base=base):
            return dict(_SCALARS[base])
        case _:
            return dict(_SCALARS[type_])
