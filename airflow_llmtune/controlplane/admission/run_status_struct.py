"""The fields of what running things say of themselves: the status of Pods, Jobs and the kinds of training."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

CONDITIONS = ListOf(
    Struct(
        "Condition",
        fields_of(
            {
                "string": "type status reason message lastProbeTime lastUpdateTime lastTransitionTime",
                "int64": "observedGeneration",
            }
        ),
    )
)

_ENDED = Struct(
    "ContainerStateTerminated",
    fields_of({"int32": "exitCode signal", "string": "reason message startedAt finishedAt containerID"}),
)
_STATE = Struct(
    "ContainerState",
    {
        "waiting": Struct("ContainerStateWaiting", fields_of({"string": "reason message"})),
        "running": Struct("ContainerStateRunning", {"startedAt": "string"}),
        "terminated": _ENDED,
    },
)
_CONTAINERS = ListOf(
    Struct(
        "ContainerStatus",
        {
            **fields_of({"string": "name image imageID containerID", "bool": "ready started", "int32": "restartCount"}),
            "state": _STATE,
            "lastState": _STATE,
        },
    )
)
POD_STATUS = Struct(
    "PodStatus",
    {
        **fields_of({"string": "phase reason message hostIP podIP startTime qosClass nominatedNodeName"}),
        "conditions": CONDITIONS,
        **fields_of({ListOf(ANY): "hostIPs podIPs"}),
        "initContainerStatuses": _CONTAINERS,
        "containerStatuses": _CONTAINERS,
    },
)

JOB_STATUS = Struct(
    "JobStatus",
    {
        "conditions": CONDITIONS,
        **fields_of(
            {
                "string": "startTime completionTime completedIndexes failedIndexes",
                "int32": "active ready terminating succeeded failed",
            }
        ),
        "uncountedTerminatedPods": Struct("UncountedTerminatedPods", fields_of({ListOf("string"): "succeeded failed"})),
    },
)

_REPLICAS = MapOf(
    Struct("ReplicaStatus", fields_of({"int32": "active succeeded failed", "string": "selector", ANY: "labelSelector"}))
)
PYTORCH_JOB_STATUS = Struct(
    "JobStatus",
    {
        "conditions": CONDITIONS,
        "replicaStatuses": _REPLICAS,
        **fields_of({"string": "startTime completionTime lastReconcileTime"}),
    },
)

_COUNTERS = ListOf(
    Struct("ReplicatedJobStatus", fields_of({"string": "name", "int32": "ready succeeded failed active suspended"}))
)
JOB_SET_STATUS = Struct(
    "JobSetStatus",
    {
        "conditions": CONDITIONS,
        **fields_of({"int32": "restarts restartsCountTowardsMax", "string": "terminalState"}),
        "replicatedJobsStatus": _COUNTERS,
    },
)
TRAIN_JOB_STATUS = Struct(
    "TrainJobStatus",
    {"conditions": CONDITIONS, "jobsStatus": _COUNTERS, "trainerStatus": MapOf(ANY)},
)
