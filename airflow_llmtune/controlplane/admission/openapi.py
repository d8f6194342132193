"""What is known of the fields of built-in kinds, as OpenAPI: for ``kubectl explain`` and for finding unknown fields.

The typed structs that admission reads objects by are the one source; whatever they leave open is open here.
"""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission import training_schema
from airflow_llmtune.controlplane.admission.experiment_struct import EXPERIMENT_SPEC
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC, POD_SPEC
from airflow_llmtune.controlplane.admission.structs import FieldType, ListOf, MapOf, Named, Struct
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    CONFIG_MAP,
    EXPERIMENT,
    JOB,
    JOB_SET,
    POD,
    PYTORCH_JOB,
    SECRET,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)

Schema = dict[str, Any]

_OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_SCALARS: dict[str, Schema] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float64": {"type": "number", "format": "double"},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}
_REPLICAS = MapOf(
    Struct(
        "ReplicaSpec",
        {"replicas": "int32", "restartPolicy": "string", "template": JOB_SPEC.fields["template"]},
    )
)
_PYTORCH_JOB_SPEC = Struct(
    "PyTorchJobSpec",
    {
        "pytorchReplicaSpecs": _REPLICAS,
        "nprocPerNode": "string",
        "runPolicy": MapOf("any"),
        "elasticPolicy": MapOf("any"),
    },
)


def _schema(type_: FieldType) -> Schema:
    match type_:
        case Struct(name=name, fields=fields):
            properties = {field: _schema(one) for field, one in fields.items()}
            return {"type": "object", "description": f"{name.split('.')[-1]}.", "properties": properties}
        case ListOf(item=item):
            return {"type": "array", "items": _schema(item)}
        case MapOf(value=value):
            return {"type": "object", "additionalProperties": _schema(value)}
        case Named(base=base):
            return _SCALARS[base]
        case _:
            return _SCALARS[type_]


def _object(spec: Schema, *, is_open: bool = False) -> Schema:
    schema: Schema = {"type": "object", "properties": {"spec": spec, "status": _OPEN}}
    return schema | {"x-kubernetes-preserve-unknown-fields": True} if is_open else schema


def _with_texts(*fields: str, **others: Schema) -> Schema:
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    return {"type": "object", "properties": dict.fromkeys(fields, texts) | others}


_IMMUTABLE = {"immutable": {"type": "boolean"}}

OPENAPI_SCHEMAS: dict[Kind, Schema] = {
    CONFIG_MAP: _with_texts("data", "binaryData", **_IMMUTABLE),
    SECRET: _with_texts("data", "stringData", type={"type": "string"}, **_IMMUTABLE),
    POD: _object(_schema(POD_SPEC)),
    JOB: _object(_schema(JOB_SPEC)),
    # Katib's and the training operators' webhooks drop unknown fields without a word, as their definitions let them in.
    EXPERIMENT: _object({**_schema(EXPERIMENT_SPEC), "x-kubernetes-preserve-unknown-fields": True}, is_open=True),
    PYTORCH_JOB: _object({**_schema(_PYTORCH_JOB_SPEC), "x-kubernetes-preserve-unknown-fields": True}, is_open=True),
    TRAIN_JOB: training_schema.TRAIN_JOB,
    TRAINING_RUNTIME: training_schema.RUNTIME,
    CLUSTER_TRAINING_RUNTIME: training_schema.RUNTIME,
    JOB_SET: training_schema.JOB_SET,
}
