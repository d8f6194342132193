"""What the statuses of KServe's kinds hold; nothing is read by it, it is told to ``kubectl explain``."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.run_status_struct import CONDITIONS
from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

_ADDRESS = Struct("Addressable", fields_of({"string": "url name CACerts audience"}))
_FAILURE = Struct(
    "FailureInfo", fields_of({"string": "location reason message modelRevisionName time", "int32": "exitCode"})
)
_MODEL = Struct(
    "ModelStatus",
    {
        "transitionStatus": "string",
        "states": Struct("ModelRevisionStates", fields_of({"string": "activeModelState targetModelState"})),
        "lastFailureInfo": _FAILURE,
        "copies": Struct("ModelCopies", fields_of({"int32": "failedCopies totalCopies"})),
    },
)
_TRAFFIC = ListOf(
    Struct("TrafficTarget", fields_of({"string": "revisionName tag url", "bool": "latestRevision", "int64": "percent"}))
)
_COMPONENTS = MapOf(
    Struct(
        "ComponentStatusSpec",
        {
            **fields_of(
                {
                    "string": "latestReadyRevision latestCreatedRevision previousRolledoutRevision "
                    "latestRolledoutRevision url restUrl grpcUrl"
                }
            ),
            "traffic": _TRAFFIC,
            "address": _ADDRESS,
        },
    )
)
_CANARIES = ListOf(
    Struct("CanaryStatus", {"name": "string", "ready": "bool", "trafficPercent": "int32", "modelStatus": _MODEL})
)

INFERENCE_SERVICE_STATUS = Struct(
    "InferenceServiceStatus",
    {
        **fields_of(
            {"string": "url deploymentMode servingRuntimeName clusterServingRuntimeName", "int64": "observedGeneration"}
        ),
        "conditions": CONDITIONS,
        "address": _ADDRESS,
        "components": _COMPONENTS,
        "modelStatus": _MODEL,
        "canaryStatuses": _CANARIES,
    },
)

_WORKLOAD = Struct("ObservedWorkloadStatus", fields_of({"string": "apiGroup kind name", "int32": "readyReplicas"}))
LLM_INFERENCE_SERVICE_STATUS = Struct(
    "LLMInferenceServiceStatus",
    {
        **fields_of({"string": "url", "int64": "observedGeneration", ANY: "router appliedConfigs"}),
        "conditions": CONDITIONS,
        "address": _ADDRESS,
        "addresses": ListOf(_ADDRESS),
        "workloads": Struct("WorkloadStatus", {"primary": _WORKLOAD, "service": _WORKLOAD}),
    },
)
