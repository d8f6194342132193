"""The schemas of JobSet, TrainJob and the training runtimes, down to the pods, whose fields the Job's rules check."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.schema_parts import (
    FLAG,
    NUMBER,
    OPEN,
    QUANTITY,
    TEXT,
    Schema,
    choice,
    list_of,
    map_of,
    object_of,
)
from airflow_llmtune.controlplane.apiserver.structural import causes, fill_defaults, prune


def apply_schema(schema: Schema, obj: dict[str, Any]) -> list[Any]:
    """Prunes and fills in the spec in place, as the API server does by a definition; what is wrong with it."""
    _drop_nulls(obj["spec"])
    prune(obj, schema, is_object=True)
    fill_defaults(obj, schema)
    return causes(obj, schema)


def _drop_nulls(value: Any) -> None:
    if isinstance(value, dict):
        for name in [name for name, one in value.items() if one is None]:
            del value[name]
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _drop_nulls(one)


def _unique(key: str, item: Schema) -> Schema:
    return {**list_of(item), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = list_of(TEXT)

_META = object_of({"labels": map_of(TEXT), "annotations": map_of(TEXT)}, is_open=True)
_VARIABLE = object_of({"name": TEXT, "value": TEXT, "valueFrom": OPEN}, ("name",))
_ENV = _unique("name", _VARIABLE)
_CONTAINERS = list_of(
    object_of(
        {"name": TEXT, "image": TEXT, "command": _TEXTS, "args": _TEXTS, "env": list_of(_VARIABLE)},
        ("name",),
        is_open=True,
    )
)
_POD_SPEC = object_of(
    {"containers": _CONTAINERS, "initContainers": _CONTAINERS, "volumes": list_of(OPEN)}, is_open=True
)
_POD_TEMPLATE = object_of({"metadata": _META, "spec": _POD_SPEC}, ("spec",))
_JOB_SPEC = object_of(
    {"template": _POD_TEMPLATE, "parallelism": NUMBER, "completions": NUMBER}, ("template",), is_open=True
)

_RULE = object_of(
    {
        "name": TEXT,
        "action": choice(
            "FailJobSet",
            "RestartJobSet",
            "RestartJobSetAndIgnoreMaxRestarts",
            "RestartJob",
            "RestartJobAndIgnoreMaxRestarts",
        ),
        "onJobFailureReasons": _TEXTS,
        "onJobFailureMessagePatterns": _TEXTS,
        "targetReplicatedJobs": _TEXTS,
    },
    ("action",),
)
JOB_SET_SPEC = object_of(
    {
        "replicatedJobs": _unique(
            "name",
            object_of(
                {
                    "name": TEXT,
                    "groupName": {"type": "string", "default": "default"},
                    "template": object_of({"metadata": _META, "spec": _JOB_SPEC}, ("spec",)),
                    "replicas": {**_COUNT, "default": 1},
                    "dependsOn": list_of(
                        object_of({"name": TEXT, "status": choice("Ready", "Complete")}, ("name", "status"))
                    ),
                },
                ("name", "template"),
            ),
        ),
        "network": object_of({"enableDNSHostnames": FLAG, "subdomain": TEXT, "publishNotReadyAddresses": FLAG}),
        "successPolicy": object_of({"operator": choice("All", "Any"), "targetReplicatedJobs": _TEXTS}, ("operator",)),
        "failurePolicy": object_of(
            {
                "maxRestarts": NUMBER,
                "restartStrategy": {
                    **choice("Recreate", "BlockingRecreate", "InPlaceRestart"),
                    "default": "Recreate",
                },
                "rules": list_of(_RULE),
            }
        ),
        "startupPolicy": object_of({"startupPolicyOrder": choice("AnyOrder", "InOrder")}, ("startupPolicyOrder",)),
        "suspend": FLAG,
        "coordinator": object_of({"replicatedJob": TEXT, "jobIndex": NUMBER, "podIndex": NUMBER}, ("replicatedJob",)),
        "managedBy": TEXT,
        "ttlSecondsAfterFinished": _COUNT,
        "volumeClaimPolicies": list_of(OPEN),
    }
)
JOB_SET = object_of({"spec": JOB_SET_SPEC}, is_open=True)

_INITIALIZER = object_of({"storageUri": TEXT, "env": _ENV, "secretRef": object_of({"name": TEXT})})
_CONTAINER_PATCHES = _unique(
    "name",
    object_of({"name": TEXT, "env": _ENV, "volumeMounts": list_of(OPEN), "securityContext": OPEN}, ("name",)),
)
_POD_PATCH = object_of(
    {
        "serviceAccountName": TEXT,
        "volumes": list_of(OPEN),
        "initContainers": _CONTAINER_PATCHES,
        "containers": _CONTAINER_PATCHES,
        "imagePullSecrets": list_of(OPEN),
        "securityContext": OPEN,
        "nodeSelector": map_of(TEXT),
        "affinity": OPEN,
        "tolerations": list_of(OPEN),
        "schedulingGates": list_of(OPEN),
        "terminationGracePeriodSeconds": _COUNT,
    }
)
_JOB_PATCH = object_of({"template": object_of({"metadata": _META, "spec": _POD_PATCH})})
_JOB_SET_PATCH = object_of(
    {
        "replicatedJobs": _unique(
            "name", object_of({"name": TEXT, "template": object_of({"metadata": _META, "spec": _JOB_PATCH})}, ("name",))
        )
    }
)
_RUNTIME_PATCH = object_of(
    {
        "manager": TEXT,
        "time": TEXT,
        "trainingRuntimeSpec": object_of({"template": object_of({"metadata": _META, "spec": _JOB_SET_PATCH})}),
    },
    ("manager",),
)
_RUNTIME_REF = object_of(
    {
        "name": TEXT,
        "apiGroup": {"type": "string", "default": "trainer.kubeflow.org"},
        "kind": {"type": "string", "default": "ClusterTrainingRuntime"},
    },
    ("name",),
)
_QUANTITIES = map_of(QUANTITY)
TRAIN_JOB = object_of(
    {
        "spec": object_of(
            {
                "runtimeRef": _RUNTIME_REF,
                "initializer": object_of({"dataset": _INITIALIZER, "model": _INITIALIZER}),
                "trainer": object_of(
                    {
                        "image": TEXT,
                        "command": _TEXTS,
                        "args": _TEXTS,
                        "env": _ENV,
                        "numNodes": NUMBER,
                        "resourcesPerNode": object_of({"limits": _QUANTITIES, "requests": _QUANTITIES}),
                        "numProcPerNode": NUMBER,
                    }
                ),
                "runtimePatches": _unique("manager", _RUNTIME_PATCH),
                "suspend": {"type": "boolean", "default": False},
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "managedBy": {"type": "string", "default": "trainer.kubeflow.org/trainjob-controller"},
            },
            ("runtimeRef",),
        )
    },
    is_open=True,
)

_TARGET = object_of({"jobName": TEXT, "containerNames": _TEXTS}, ("containerNames", "jobName"))
RUNTIME = object_of(
    {
        "spec": object_of(
            {
                "mlPolicy": object_of(
                    {
                        "numNodes": NUMBER,
                        "torch": object_of({"envInjection": object_of({"targets": list_of(_TARGET)})}),
                        "mpi": OPEN,
                        "jax": OPEN,
                        "xgboost": OPEN,
                        "flux": OPEN,
                    }
                ),
                "podGroupPolicy": OPEN,
                "template": object_of({"metadata": _META, "spec": JOB_SET_SPEC}),
            }
        )
    },
    is_open=True,
)

_REPLICA = object_of({"replicas": NUMBER, "restartPolicy": TEXT, "template": _POD_TEMPLATE})
_ELASTIC = object_of(
    {
        "minReplicas": NUMBER,
        "maxReplicas": NUMBER,
        "rdzvBackend": TEXT,
        "rdzvHost": TEXT,
        "rdzvPort": NUMBER,
        "rdzvId": TEXT,
        "rdzvConf": list_of(object_of({"key": TEXT, "value": TEXT})),
        "standalone": FLAG,
        "maxRestarts": NUMBER,
        "metrics": list_of(OPEN),
        "nProcPerNode": NUMBER,
    }
)
_RUN_POLICY = object_of(
    {
        "cleanPodPolicy": TEXT,
        "ttlSecondsAfterFinished": NUMBER,
        "activeDeadlineSeconds": NUMBER,
        "backoffLimit": NUMBER,
        "suspend": {"type": "boolean", "default": False},
        "schedulingPolicy": OPEN,
        "managedBy": TEXT,
    }
)
PYTORCH_JOB = object_of(
    {
        "spec": object_of(
            {
                "nprocPerNode": TEXT,
                "elasticPolicy": _ELASTIC,
                "runPolicy": _RUN_POLICY,
                "pytorchReplicaSpecs": map_of(_REPLICA),
            },
            ("pytorchReplicaSpecs",),
        )
    },
    is_open=True,
)
