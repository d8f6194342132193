"""The schemas of JobSet, TrainJob and the training runtimes, down to the pods, whose fields the Job's rules check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.apiserver.structural import causes, fill_defaults, prune

_Schema = dict[str, Any]


def apply_schema(schema: _Schema, obj: dict[str, Any]) -> list[Any]:
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


def _object(properties: _Schema, required: Sequence[str] = (), *, is_open: bool = False) -> _Schema:
    made = {"type": "object", "properties": properties, "required": list(required)}
    return {**made, "x-kubernetes-preserve-unknown-fields": True} if is_open else made


def _list(item: _Schema) -> _Schema:
    return {"type": "array", "items": item}


def _unique(key: str, item: _Schema) -> _Schema:
    return {**_list(item), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def _map(value: _Schema) -> _Schema:
    return {"type": "object", "additionalProperties": value}


def _choice(*words: str, **more: str) -> _Schema:
    return {"type": "string", "enum": list(words), **more}


_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_OPEN = _object({}, is_open=True)
_TEXTS = _list(_TEXT)

_META = _object({"labels": _map(_TEXT), "annotations": _map(_TEXT)}, is_open=True)
_VARIABLE = _object({"name": _TEXT, "value": _TEXT, "valueFrom": _OPEN}, ("name",))
_ENV = _unique("name", _VARIABLE)
_CONTAINERS = _list(
    _object(
        {"name": _TEXT, "image": _TEXT, "command": _TEXTS, "args": _TEXTS, "env": _list(_VARIABLE)},
        ("name",),
        is_open=True,
    )
)
_POD_SPEC = _object({"containers": _CONTAINERS, "initContainers": _CONTAINERS, "volumes": _list(_OPEN)}, is_open=True)
_POD_TEMPLATE = _object({"metadata": _META, "spec": _POD_SPEC}, ("spec",))
_JOB_SPEC = _object(
    {"template": _POD_TEMPLATE, "parallelism": _NUMBER, "completions": _NUMBER}, ("template",), is_open=True
)

_RULE = _object(
    {
        "name": _TEXT,
        "action": _choice(
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
JOB_SET_SPEC = _object(
    {
        "replicatedJobs": _unique(
            "name",
            _object(
                {
                    "name": _TEXT,
                    "groupName": {"type": "string", "default": "default"},
                    "template": _object({"metadata": _META, "spec": _JOB_SPEC}, ("spec",)),
                    "replicas": {**_COUNT, "default": 1},
                    "dependsOn": _list(
                        _object({"name": _TEXT, "status": _choice("Ready", "Complete")}, ("name", "status"))
                    ),
                },
                ("name", "template"),
            ),
        ),
        "network": _object({"enableDNSHostnames": _FLAG, "subdomain": _TEXT, "publishNotReadyAddresses": _FLAG}),
        "successPolicy": _object({"operator": _choice("All", "Any"), "targetReplicatedJobs": _TEXTS}, ("operator",)),
        "failurePolicy": _object(
            {
                "maxRestarts": _NUMBER,
                "restartStrategy": _choice("Recreate", "BlockingRecreate", "InPlaceRestart", default="Recreate"),
                "rules": _list(_RULE),
            }
        ),
        "startupPolicy": _object({"startupPolicyOrder": _choice("AnyOrder", "InOrder")}, ("startupPolicyOrder",)),
        "suspend": _FLAG,
        "coordinator": _object({"replicatedJob": _TEXT, "jobIndex": _NUMBER, "podIndex": _NUMBER}, ("replicatedJob",)),
        "managedBy": _TEXT,
        "ttlSecondsAfterFinished": _COUNT,
        "volumeClaimPolicies": _list(_OPEN),
    }
)
JOB_SET = _object({"spec": JOB_SET_SPEC}, is_open=True)

_INITIALIZER = _object({"storageUri": _TEXT, "env": _ENV, "secretRef": _object({"name": _TEXT})})
_CONTAINER_PATCHES = _unique(
    "name",
    _object({"name": _TEXT, "env": _ENV, "volumeMounts": _list(_OPEN), "securityContext": _OPEN}, ("name",)),
)
_POD_PATCH = _object(
    {
        "serviceAccountName": _TEXT,
        "volumes": _list(_OPEN),
        "initContainers": _CONTAINER_PATCHES,
        "containers": _CONTAINER_PATCHES,
        "imagePullSecrets": _list(_OPEN),
        "securityContext": _OPEN,
        "nodeSelector": _map(_TEXT),
        "affinity": _OPEN,
        "tolerations": _list(_OPEN),
        "schedulingGates": _list(_OPEN),
        "terminationGracePeriodSeconds": _COUNT,
    }
)
_JOB_PATCH = _object({"template": _object({"metadata": _META, "spec": _POD_PATCH})})
_JOB_SET_PATCH = _object(
    {
        "replicatedJobs": _unique(
            "name", _object({"name": _TEXT, "template": _object({"metadata": _META, "spec": _JOB_PATCH})}, ("name",))
        )
    }
)
_RUNTIME_PATCH = _object(
    {
        "manager": _TEXT,
        "time": _TEXT,
        "trainingRuntimeSpec": _object({"template": _object({"metadata": _META, "spec": _JOB_SET_PATCH})}),
    },
    ("manager",),
)
_RUNTIME_REF = _object(
    {
        "name": _TEXT,
        "apiGroup": {"type": "string", "default": "trainer.kubeflow.org"},
        "kind": {"type": "string", "default": "ClusterTrainingRuntime"},
    },
    ("name",),
)
_QUANTITIES = _map(
    {
        "x-kubernetes-int-or-string": True,
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
        r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    }
)
TRAIN_JOB = _object(
    {
        "spec": _object(
            {
                "runtimeRef": _RUNTIME_REF,
                "initializer": _object({"dataset": _INITIALIZER, "model": _INITIALIZER}),
                "trainer": _object(
                    {
                        "image": _TEXT,
                        "command": _TEXTS,
                        "args": _TEXTS,
                        "env": _ENV,
                        "numNodes": _NUMBER,
                        "resourcesPerNode": _object({"limits": _QUANTITIES, "requests": _QUANTITIES}),
                        "numProcPerNode": _NUMBER,
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

_TARGET = _object({"jobName": _TEXT, "containerNames": _TEXTS}, ("containerNames", "jobName"))
RUNTIME = _object(
    {
        "spec": _object(
            {
                "mlPolicy": _object(
                    {
                        "numNodes": _NUMBER,
                        "torch": _object({"envInjection": _object({"targets": _list(_TARGET)})}),
                        "mpi": _OPEN,
                        "jax": _OPEN,
                        "xgboost": _OPEN,
                        "flux": _OPEN,
                    }
                ),
                "podGroupPolicy": _OPEN,
                "template": _object({"metadata": _META, "spec": JOB_SET_SPEC}),
            }
        )
    },
    is_open=True,
)

_REPLICA = _object({"replicas": _NUMBER, "restartPolicy": _TEXT, "template": _POD_TEMPLATE})
_ELASTIC = _object(
    {
        "minReplicas": _NUMBER,
        "maxReplicas": _NUMBER,
        "rdzvBackend": _TEXT,
        "rdzvHost": _TEXT,
        "rdzvPort": _NUMBER,
        "rdzvId": _TEXT,
        "rdzvConf": _list(_object({"key": _TEXT, "value": _TEXT})),
        "standalone": _FLAG,
        "maxRestarts": _NUMBER,
        "metrics": _list(_OPEN),
        "nProcPerNode": _NUMBER,
    }
)
_RUN_POLICY = _object(
    {
        "cleanPodPolicy": _TEXT,
        "ttlSecondsAfterFinished": _NUMBER,
        "activeDeadlineSeconds": _NUMBER,
        "backoffLimit": _NUMBER,
        "suspend": {"type": "boolean", "default": False},
        "schedulingPolicy": _OPEN,
        "managedBy": _TEXT,
    }
)
PYTORCH_JOB = _object(
    {
        "spec": _object(
            {
                "nprocPerNode": _TEXT,
                "elasticPolicy": _ELASTIC,
                "runPolicy": _RUN_POLICY,
                "pytorchReplicaSpecs": _map(_REPLICA),
            },
            ("pytorchReplicaSpecs",),
        )
    },
    is_open=True,
)
