"""The objects a Suggestion shows in a cluster: Deployment, Service, volume claim and the rights of early stopping.

Differs from Katib: the algorithm runs inside the control plane, so the Deployment has no pod; it is available at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import (
    DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    SUGGESTION,
    Kind,
)
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.runtime import (
    controller_of,
    is_controlled_by,
    is_left_behind,
    owner_reference,
)

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]

KINDS = (DEPLOYMENT, SERVICE, PERSISTENT_VOLUME_CLAIM)

_PORT = {"name": "suggestion-api", "port": 6789}
_EARLY_STOPPING_PORT = {"name": "earlystop-api", "port": 6788}
_VOLUME = "suggestion-volume"
_VOLUME_PATH = "/opt/katib/data"
_IMAGES = {
    "random": "hyperopt",
    "tpe": "hyperopt",
    "grid": "optuna",
    "multivariate-tpe": "optuna",
    "bayesianoptimization": "skopt",
    "cmaes": "goptuna",
    "sobol": "goptuna",
    "hyperband": "hyperband",
    "pbt": "pbt",
}
_IMAGE = "kubeflow/katib/suggestion-{}:v0.19.0"
_EARLY_STOPPING_IMAGE = "kubeflow/katib/earlystopping-medianstop:v0.19.0"
_CLAIM: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_SHARED_CLAIM: Object = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}}


def name_of(suggestion: Object) -> str:
    """Of all its objects."""
    return f"{suggestion['metadata']['name']}-{suggestion['spec']['algorithm']['algorithmName']}"


def ensure(registry: Registry, suggestion: Object) -> bool:
    """Make what is missing; whether the Deployment was there and available already."""
    if suggestion["spec"].get("resumePolicy") == "FromVolume":
        spec = _claim_spec(suggestion)
        bound = {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": spec["resources"]["requests"]}
        _make(registry, suggestion, PERSISTENT_VOLUME_CLAIM, {"spec": spec}, status=bound)
    _make(registry, suggestion, SERVICE, _service(suggestion))
    if suggestion["spec"].get("earlyStopping"):
        for kind, obj in _rights(suggestion):
            _make(registry, suggestion, kind, obj)
    deployment = _make(registry, suggestion, DEPLOYMENT, _deployment(suggestion), status=_AVAILABLE)
    return deployment is not None and has_condition(deployment, "Available")


def remove(registry: Registry, suggestion: Object) -> None:
    """Deployment and Service go when the Suggestion has succeeded; the claim stays until it is deleted."""
    for kind in (DEPLOYMENT, SERVICE):
        found = registry.find(kind, suggestion["metadata"]["namespace"], name_of(suggestion))
        if found is not None and is_controlled_by(found, suggestion) and "deletionTimestamp" not in found["metadata"]:
            registry.delete(kind, suggestion["metadata"]["namespace"], name_of(suggestion))


def _make(
    registry: Registry, suggestion: Object, kind: Kind, obj: Object, *, status: Object | None = None
) -> Object | None:
    """The object as it was found; None when it had to be made, or when one of an earlier Suggestion must go first.

    That of another Suggestion will do, as upstream: ``a-multivariate`` with ``tpe`` and ``a`` with
    ``multivariate-tpe`` want the same name.
    """
    metadata = suggestion["metadata"]
    found = registry.find(kind, metadata["namespace"], name_of(suggestion))
    if found is not None:
        return None if _is_of_an_earlier(found, suggestion) else found
    own = {
        "name": name_of(suggestion),
        "namespace": metadata["namespace"],
        "ownerReferences": [owner_reference(SUGGESTION, suggestion)],
    }
    made = registry.create(kind, {"metadata": {**obj.pop("metadata", {}), **own}, **obj})
    if status is not None:
        registry.update_status(kind, {**made, "status": status})
    return None


def _is_of_an_earlier(found: Object, suggestion: Object) -> bool:
    """Of a Suggestion that had this one's name; the garbage collector is about to take it."""
    owner = controller_of(found)
    return owner is not None and owner["name"] == suggestion["metadata"]["name"] and is_left_behind(found, suggestion)


_AVAILABLE = {
    "observedGeneration": 1,
    "replicas": 1,
    "readyReplicas": 1,
    "availableReplicas": 1,
    "updatedReplicas": 1,
    "conditions": [{"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}],
}


def _labels(suggestion: Object) -> dict[str, str]:
    return {
        **suggestion["metadata"].get("labels", {}),
        "katib.kubeflow.org/deployment": name_of(suggestion),
        "katib.kubeflow.org/experiment": suggestion["metadata"]["name"],
        "katib.kubeflow.org/suggestion": suggestion["metadata"]["name"],
        "sidecar.istio.io/inject": "false",
    }


def _deployment(suggestion: Object) -> Object:
    spec, metadata = suggestion["spec"], suggestion["metadata"]
    copied = {field: metadata[field] for field in ("labels", "annotations") if field in metadata}
    annotations = {"annotations": metadata["annotations"]} if "annotations" in metadata else {}
    pod: Object = {"containers": _containers(suggestion)}
    if spec.get("resumePolicy") == "FromVolume":
        claim = {"claimName": name_of(suggestion)}
        pod["volumes"] = [{"name": _VOLUME, "persistentVolumeClaim": claim}]
    if spec.get("earlyStopping"):
        pod["serviceAccountName"] = name_of(suggestion)
    template = {"metadata": {"labels": _labels(suggestion), **annotations}, "spec": pod}
    wanted = {"replicas": 1, "selector": {"matchLabels": _labels(suggestion)}, "template": template}
    return {"metadata": copied, "spec": wanted}


def _containers(suggestion: Object) -> list[Object]:
    spec = suggestion["spec"]
    main: Object = {
        "name": "suggestion",
        "image": _IMAGE.format(_IMAGES[spec["algorithm"]["algorithmName"]]),
        "ports": [{"name": _PORT["name"], "containerPort": _PORT["port"]}],
    }
    if spec.get("resumePolicy") == "FromVolume":
        main["volumeMounts"] = [{"name": _VOLUME, "mountPath": _VOLUME_PATH}]
    if not spec.get("earlyStopping"):
        return [main]
    port = {"name": _EARLY_STOPPING_PORT["name"], "containerPort": _EARLY_STOPPING_PORT["port"]}
    return [main, {"name": "early-stopping", "image": _EARLY_STOPPING_IMAGE, "ports": [port]}]


def _service(suggestion: Object) -> Object:
    ports = [_PORT, *([_EARLY_STOPPING_PORT] if suggestion["spec"].get("earlyStopping") else [])]
    return {"spec": {"selector": _labels(suggestion), "ports": ports, "type": "ClusterIP"}}


def _claim_spec(suggestion: Object) -> Object:
    """As the stock configuration has it: no volume of its own, and what pbt's trials share can be written by many."""
    is_shared = suggestion["spec"]["algorithm"]["algorithmName"] == "pbt"
    return _SHARED_CLAIM if is_shared else _CLAIM


def _rights(suggestion: Object) -> list[tuple[Kind, Object]]:
    name, namespace = name_of(suggestion), suggestion["metadata"]["namespace"]
    rule = {"apiGroups": ["kubeflow.org"], "resources": ["trials", "trials/status"], "verbs": ["*"]}
    return [
        (SERVICE_ACCOUNT, {}),
        (ROLE, {"rules": [rule]}),
        (
            ROLE_BINDING,
            {
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            },
        ),
    ]
