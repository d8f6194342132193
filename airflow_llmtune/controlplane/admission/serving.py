"""Which rules apply to KServe's kinds and to the pods that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from airflow_llmtune.controlplane.admission import llm_serving_schema, serving_schema
from airflow_llmtune.controlplane.admission.inference_service import WEBHOOK, check_inference_service
from airflow_llmtune.controlplane.admission.inference_service_defaults import default_inference_service
from airflow_llmtune.controlplane.admission.llm_inference_service import (
    check_llm_inference_service,
    default_llm_inference_service,
)
from airflow_llmtune.controlplane.admission.serving_runtime import check_serving_runtime
from airflow_llmtune.controlplane.admission.training_schema import apply_schema
from airflow_llmtune.controlplane.admission.webhook_denial import DenialError, denied_by
from airflow_llmtune.controlplane.apiserver.errors import invalid
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    INFERENCE_SERVICE,
    LLM_INFERENCE_SERVICE,
    SERVING_RUNTIME,
    Kind,
)

Object = dict[str, Any]
ListObjects = Callable[[Kind, str], Iterable[Object]]

_SCHEMAS: dict[Kind, Object] = {
    INFERENCE_SERVICE: serving_schema.INFERENCE_SERVICE,
    SERVING_RUNTIME: serving_schema.RUNTIME,
    CLUSTER_SERVING_RUNTIME: serving_schema.RUNTIME,
    LLM_INFERENCE_SERVICE: llm_serving_schema.LLM_INFERENCE_SERVICE,
}


def admit_serving(kind: Kind, obj: Object, old: Object | None, all_of: ListObjects) -> None:
    """``old`` is None for an object that is being made. Other kinds are let through."""
    if kind not in _SCHEMAS or "deletionTimestamp" in obj["metadata"]:
        return  # Of an object that is going only finalizers change.
    obj.setdefault("spec", {})
    causes = apply_schema(_SCHEMAS[kind], obj)
    if causes:
        raise invalid(kind, obj["metadata"]["name"], causes)
    if kind == LLM_INFERENCE_SERVICE:
        default_llm_inference_service(obj)
        check_llm_inference_service(obj)
        return
    webhook = WEBHOOK if kind == INFERENCE_SERVICE else f"{kind.singular}.kserve-webhook-server.validator"
    try:
        if kind == INFERENCE_SERVICE:
            default_inference_service(obj)
            check_inference_service(obj, old)
        else:
            check_serving_runtime(kind, obj, all_of(kind, obj["metadata"].get("namespace", "")))
    except DenialError as denial:
        raise denied_by(webhook, denial) from None
