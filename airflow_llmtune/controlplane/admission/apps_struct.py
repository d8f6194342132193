"""The fields of ``apps/v1`` Deployment and ReplicaSet, for typed reading and for ``kubectl explain``."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC
from airflow_llmtune.controlplane.admission.run_status_struct import CONDITIONS
from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

_SELECTOR = Struct(
    "LabelSelector",
    {
        "matchLabels": MapOf("string"),
        "matchExpressions": ListOf(
            Struct("LabelSelectorRequirement", {**fields_of({"string": "key operator"}), "values": ListOf("string")})
        ),
    },
)
_TEMPLATE = JOB_SPEC.fields["template"]
# Both may be a number or a percentage.
_ROLLING_UPDATE = Struct("RollingUpdateDeployment", fields_of({ANY: "maxUnavailable maxSurge"}))

DEPLOYMENT_SPEC = Struct(
    "DeploymentSpec",
    {
        "replicas": "int32",
        "selector": _SELECTOR,
        "template": _TEMPLATE,
        "strategy": Struct("DeploymentStrategy", {"type": "string", "rollingUpdate": _ROLLING_UPDATE}),
        **fields_of({"int32": "minReadySeconds revisionHistoryLimit progressDeadlineSeconds", "bool": "paused"}),
    },
)
DEPLOYMENT_STATUS = Struct(
    "DeploymentStatus",
    {
        **fields_of(
            {
                "int64": "observedGeneration",
                "int32": "replicas updatedReplicas readyReplicas availableReplicas unavailableReplicas "
                "terminatingReplicas collisionCount",
            }
        ),
        "conditions": CONDITIONS,
    },
)

REPLICA_SET_SPEC = Struct(
    "ReplicaSetSpec",
    {**fields_of({"int32": "replicas minReadySeconds"}), "selector": _SELECTOR, "template": _TEMPLATE},
)
REPLICA_SET_STATUS = Struct(
    "ReplicaSetStatus",
    {
        **fields_of(
            {
                "int32": "replicas fullyLabeledReplicas readyReplicas availableReplicas terminatingReplicas",
                "int64": "observedGeneration",
            }
        ),
        "conditions": CONDITIONS,
    },
)
