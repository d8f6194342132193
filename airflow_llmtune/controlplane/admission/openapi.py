"""What is known of the fields of built-in kinds, as OpenAPI: for ``kubectl explain`` and for finding unknown fields.

The typed structs that admission reads objects by are the first source; whatever they leave open is open here. Kinds and
statuses that it does not read have structs for this alone, which refuse nothing.
"""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission import (
    built_in_struct,
    katib_struct,
    llm_serving_schema,
    run_status_struct,
    serving_schema,
    serving_struct,
    training_schema,
)
from airflow_llmtune.controlplane.admission.apps_struct import (
    DEPLOYMENT_SPEC,
    DEPLOYMENT_STATUS,
    REPLICA_SET_SPEC,
    REPLICA_SET_STATUS,
)
from airflow_llmtune.controlplane.admission.experiment_struct import EXPERIMENT_SPEC
from airflow_llmtune.controlplane.admission.http_route_schema import HTTP_ROUTE as HTTP_ROUTE_SCHEMA
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC, POD_SPEC
from airflow_llmtune.controlplane.admission.struct_schema import schema_of
from airflow_llmtune.controlplane.admission.structs import MapOf, Struct
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CLUSTER_TRAINING_RUNTIME,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    EVENT,
    EXPERIMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    JOB_SET,
    LLM_INFERENCE_SERVICE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PYTORCH_JOB,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SERVING_RUNTIME,
    SUGGESTION,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    TRIAL,
    Kind,
)

Schema = dict[str, Any]

_REPLICAS = MapOf(
    Struct(
        "ReplicaSpec",
        {"replicas": "int32", "restartPolicy": "string", "template": JOB_SPEC.fields["template"]},
    )
)


def _opened(schema: Schema) -> Schema:
    """For fields that are told of and not checked: one that is missing here is no mistake of the sender."""
    opened = dict(schema)
    if schema.get("type") == "object":
        opened["x-kubernetes-preserve-unknown-fields"] = True
    if "properties" in schema:
        opened["properties"] = {name: _opened(one) for name, one in schema["properties"].items()}
    for below in ("items", "additionalProperties"):
        if below in schema:
            opened[below] = _opened(schema[below])
    return opened


def _told(type_: Struct) -> Schema:
    return _opened(schema_of(type_))


def _object(spec: Schema, status: Struct) -> Schema:
    return {"type": "object", "properties": {"spec": spec, "status": _told(status)}}


def _custom(spec: Schema, status: Struct) -> Schema:
    """Katib's and the training operators' webhooks drop unknown fields without a word: their definitions are open."""
    is_open = {"x-kubernetes-preserve-unknown-fields": True}
    return {**_object({**spec, **is_open}, status), **is_open}


def _with_status(schema: Schema, status: Struct) -> Schema:
    return {**schema, "properties": {**schema["properties"], "status": _told(status)}}


def _pytorch_job_spec() -> Schema:
    known = _opened(training_schema.PYTORCH_JOB["properties"]["spec"])
    return {**known, "properties": {**known["properties"], "pytorchReplicaSpecs": schema_of(_REPLICAS)}}


def _with_texts(*fields: str, **others: Schema) -> Schema:
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    return {"type": "object", "properties": dict.fromkeys(fields, texts) | others}


_IMMUTABLE = {"immutable": {"type": "boolean"}}

OPENAPI_SCHEMAS: dict[Kind, Schema] = {
    CONFIG_MAP: _with_texts("data", "binaryData", **_IMMUTABLE),
    SECRET: _with_texts("data", "stringData", type={"type": "string"}, **_IMMUTABLE),
    NAMESPACE: _told(built_in_struct.NAMESPACE),
    SERVICE: _told(built_in_struct.SERVICE),
    EVENT: _told(built_in_struct.EVENT),
    SERVICE_ACCOUNT: _told(built_in_struct.SERVICE_ACCOUNT),
    PERSISTENT_VOLUME_CLAIM: _told(built_in_struct.PERSISTENT_VOLUME_CLAIM),
    PERSISTENT_VOLUME: _told(built_in_struct.PERSISTENT_VOLUME),
    NODE: _told(built_in_struct.NODE),
    DEPLOYMENT: _object(schema_of(DEPLOYMENT_SPEC), DEPLOYMENT_STATUS),
    REPLICA_SET: _object(schema_of(REPLICA_SET_SPEC), REPLICA_SET_STATUS),
    CONTROLLER_REVISION: _told(built_in_struct.CONTROLLER_REVISION),
    ROLE: _told(built_in_struct.ROLE),
    ROLE_BINDING: _told(built_in_struct.ROLE_BINDING),
    CUSTOM_RESOURCE_DEFINITION: _told(built_in_struct.CUSTOM_RESOURCE_DEFINITION),
    POD: _object(schema_of(POD_SPEC), run_status_struct.POD_STATUS),
    JOB: _object(schema_of(JOB_SPEC), run_status_struct.JOB_STATUS),
    EXPERIMENT: _custom(schema_of(EXPERIMENT_SPEC), katib_struct.EXPERIMENT_STATUS),
    SUGGESTION: _custom(_told(katib_struct.SUGGESTION_SPEC), katib_struct.SUGGESTION_STATUS),
    TRIAL: _custom(_told(katib_struct.TRIAL_SPEC), katib_struct.TRIAL_STATUS),
    PYTORCH_JOB: _custom(_pytorch_job_spec(), run_status_struct.PYTORCH_JOB_STATUS),
    TRAIN_JOB: _with_status(training_schema.TRAIN_JOB, run_status_struct.TRAIN_JOB_STATUS),
    TRAINING_RUNTIME: training_schema.RUNTIME,
    CLUSTER_TRAINING_RUNTIME: training_schema.RUNTIME,
    JOB_SET: _with_status(training_schema.JOB_SET, run_status_struct.JOB_SET_STATUS),
    HTTP_ROUTE: HTTP_ROUTE_SCHEMA,
    INFERENCE_SERVICE: _with_status(serving_schema.INFERENCE_SERVICE, serving_struct.INFERENCE_SERVICE_STATUS),
    SERVING_RUNTIME: serving_schema.RUNTIME,
    CLUSTER_SERVING_RUNTIME: serving_schema.RUNTIME,
    LLM_INFERENCE_SERVICE: _with_status(
        llm_serving_schema.LLM_INFERENCE_SERVICE, serving_struct.LLM_INFERENCE_SERVICE_STATUS
    ),
}
