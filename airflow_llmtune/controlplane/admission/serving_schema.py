"""The schemas of KServe's InferenceService (v1beta1) and of its runtimes (v1alpha1)."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.job_struct import POD_SPEC
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
from airflow_llmtune.controlplane.admission.struct_schema import schema_of

FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
"""Those that had a field of their own before there was ``model``."""

_TEXTS = list_of(TEXT)
_LABELS = map_of(TEXT)
_POD = schema_of(POD_SPEC)["properties"]


def _container_fields() -> Schema:
    known = dict(_POD["containers"]["items"]["properties"])
    quantities = map_of(QUANTITY)
    known["resources"] = object_of({"limits": quantities, "requests": quantities, "claims": list_of(OPEN)})
    known["env"] = {
        **list_of(object_of({**fields(TEXT, "name value"), "valueFrom": OPEN}, ("name",))),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    known["ports"] = list_of(
        object_of(
            {**fields(TEXT, "name protocol hostIP"), **fields(NUMBER, "containerPort hostPort")}, ("containerPort",)
        )
    )
    return known


_CONTAINER = object_of(_container_fields(), ("name",))
CONTAINERS = list_of(_CONTAINER)
POD_FIELDS: Schema = {**_POD, "containers": CONTAINERS, "initContainers": CONTAINERS, "resources": OPEN}

_STORAGE = fields(TEXT, "key path") | {"parameters": _LABELS}
_MODEL = {
    **_container_fields(),
    **fields(TEXT, "storageUri runtimeVersion protocolVersion"),
    "storage": object_of({**_STORAGE, "schemaPath": TEXT}),
    "confidential": object_of({"enabled": FLAG, "resourceId": TEXT}, ("enabled",)),
}
STORAGE_URIS = {
    **list_of(
        object_of(
            {
                "uri": {**TEXT, "minLength": 1},
                "mountPath": {**TEXT, "default": "/mnt/models", "pattern": "^/.*", "maxLength": 255},
            },
            ("uri",),
        )
    ),
    "minItems": 1,
}
_INT_OR_TEXT: Schema = {"x-kubernetes-int-or-string": True}
_EXTENSION = {
    **fields(NUMBER, "minReplicas maxReplicas scaleTarget containerConcurrency timeout canaryTrafficPercent"),
    "scaleMetric": choice("cpu", "memory", "concurrency", "rps"),
    "scaleMetricType": choice("Utilization", "Value", "AverageValue"),
    "autoScaling": object_of({"metrics": list_of(OPEN), "behavior": OPEN}),
    "logger": object_of(
        {
            **fields(TEXT, "url marshallerUrl batchInterval"),
            "mode": choice("all", "request", "response"),
            **fields(_TEXTS, "metadataHeaders metadataAnnotations"),
            "storage": object_of({**_STORAGE, "serviceAccountName": TEXT}),
            "batchSize": NUMBER,
        }
    ),
    "batcher": object_of(fields(NUMBER, "maxBatchSize maxLatency timeout")),
    **fields(_LABELS, "labels annotations"),
    "deploymentStrategy": object_of(
        {"type": TEXT, "rollingUpdate": object_of(fields(_INT_OR_TEXT, "maxSurge maxUnavailable"))}
    ),
}
_WORKER = object_of({**POD_FIELDS, **fields(NUMBER, "pipelineParallelSize tensorParallelSize")})
_PREDICTOR = object_of(
    {
        **POD_FIELDS,
        **_EXTENSION,
        "name": {**TEXT, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
        **dict.fromkeys(FRAMEWORKS, object_of(_MODEL)),
        "model": object_of(
            {**_MODEL, "modelFormat": object_of(fields(TEXT, "name version"), ("name",)), "runtime": TEXT},
            ("modelFormat",),
        ),
        "storageUris": STORAGE_URIS,
        "storageContainerName": TEXT,
        "workerSpec": _WORKER,
    }
)
_OTHER_COMPONENT = {**POD_FIELDS, **_EXTENSION, "storageUris": STORAGE_URIS}
_PERCENT = {**NUMBER, "minimum": 0, "maximum": 100}

INFERENCE_SERVICE = object_of(
    {
        "spec": object_of(
            {
                "predictor": _PREDICTOR,
                "transformer": object_of(_OTHER_COMPONENT),
                "explainer": object_of({**_OTHER_COMPONENT, "art": OPEN}),
                "canary": list_of(
                    object_of({"predictor": _PREDICTOR, "trafficPercent": _PERCENT}, ("predictor", "trafficPercent"))
                ),
            },
            ("predictor",),
        ),
        "status": OPEN,
    }
)

_RUNTIME_POD = {
    "containers": CONTAINERS,
    "volumes": list_of(OPEN),
    "nodeSelector": _LABELS,
    "affinity": OPEN,
    "tolerations": list_of(OPEN),
    **fields(_LABELS, "labels annotations"),
    "imagePullSecrets": list_of(object_of({"name": TEXT})),
    "hostIPC": FLAG,
    "schedulerName": TEXT,
}
_FORMAT = object_of(
    {**fields(TEXT, "name version"), "autoSelect": FLAG, "priority": {**NUMBER, "minimum": 1}}, ("name",)
)
RUNTIME = object_of(
    {
        "spec": object_of(
            {
                **_RUNTIME_POD,
                "supportedModelFormats": list_of(_FORMAT),
                **fields(FLAG, "multiModel disabled"),
                "protocolVersions": _TEXTS,
                "workerSpec": object_of(
                    {**_RUNTIME_POD, **fields(NUMBER, "pipelineParallelSize tensorParallelSize")}, ("containers",)
                ),
                **fields(TEXT, "grpcEndpoint grpcDataEndpoint httpDataEndpoint"),
                "replicas": NUMBER,
                "storageHelper": object_of({"disabled": FLAG}),
                "builtInAdapter": object_of({"serverType": TEXT}, is_open=True),
            },
            ("containers",),
        ),
        "status": object_of({}),
    }
)
