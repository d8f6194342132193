"""The schema of KServe's LLMInferenceService (v1alpha2)."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.schema_parts import (
    FLAG,
    NUMBER,
    OPEN,
    QUANTITY,
    TEXT,
    Schema,
    choice,
    fields,
    list_of,
    map_of,
    object_of,
)
from airflow_llmtune.controlplane.admission.serving_schema import POD_FIELDS

_POSITIVE: Schema = {**NUMBER, "minimum": 1}
_LABELS = map_of(TEXT)
_POD = object_of(POD_FIELDS)
_REFS = list_of(object_of(fields(TEXT, "name namespace sectionName"), ("name",)))

_MODEL = object_of(
    {
        **fields(TEXT, "uri name"),
        "confidential": object_of({"enabled": FLAG, "resourceId": TEXT}, ("enabled",)),
        "lora": object_of(
            {
                **fields(_POSITIVE, "maxRank maxAdapters maxCpuAdapters"),
                "adapters": list_of(object_of(fields(TEXT, "name uri"), ("uri",))),
            }
        ),
    },
    ("uri",),
)
_PARALLELISM = object_of(
    {
        **fields(_POSITIVE, "data dataLocal pipeline tensor"),
        "dataRPCPort": {**_POSITIVE, "maximum": 65535},
        "expert": FLAG,
    }
)
_ROUTER = object_of(
    {
        "gateway": object_of({"refs": _REFS}),
        "ingress": object_of({"refs": _REFS}),
        "route": object_of(
            {
                "group": {**TEXT, "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
                "weight": {**NUMBER, "minimum": 0, "maximum": 1_000_000},
                "http": object_of({"refs": list_of(object_of({"name": TEXT})), "spec": OPEN}),
            }
        ),
        "scheduler": OPEN,
    }
)
_WORKLOAD = {
    "replicas": NUMBER,
    "parallelism": _PARALLELISM,
    **fields(_POD, "template worker"),
    **fields(_LABELS, "labels annotations"),
    "scaling": object_of({**fields(_POSITIVE, "minReplicas maxReplicas"), "wva": OPEN}, ("maxReplicas",)),
    "kvCacheOffloading": object_of(
        {"cpu": QUANTITY, "evictionPolicy": choice("lru", "arc"), "secondary": list_of(OPEN)}, ("cpu",)
    ),
}

LLM_INFERENCE_SERVICE = object_of(
    {
        "spec": object_of(
            {
                **_WORKLOAD,
                "model": _MODEL,
                "router": _ROUTER,
                "prefill": object_of(_WORKLOAD),
                "baseRefs": list_of(object_of({"name": TEXT})),
                "storageInitializer": object_of({"enabled": FLAG}),
                "tracing": object_of(fields(TEXT, "exporter exporterEndpoint sampler samplerArg")),
            }
        ),
        "status": OPEN,
    }
)
