"""The Deployment, the Service and the route of a predictor, as KServe's Standard mode makes them. Pure.

There is no autoscaler: the Deployment gets the replicas that one would start with. The route goes by a path prefix, as
KServe's ``pathTemplate`` does, because the gateway has no names of its own.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import (
    AUTOSCALER,
    COMPONENT_LABEL,
    KEPT_TO_ITSELF,
    MODEL_PORT,
    PREDICTOR,
    SERVICE_LABEL,
    SOURCE_URI,
    app_label,
    predictor_name,
)
from airflow_llmtune.controlplane.apiserver.kinds import INFERENCE_SERVICE, Kind
from airflow_llmtune.controlplane.controllers.predictor_pod import model_port
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from airflow_llmtune.controlplane.controllers.serving_runtimes import Runtime

Object = dict[str, Any]

PORT = 80
_SECONDS = 60
_GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "kserve"}


def own_metadata(service: Object, predictor: Object, runtime: Runtime | None, uri: str | None) -> Object:
    """Labels and annotations of all that the predictor is made of; its own win over those of its runtime."""
    metadata = service["metadata"]
    spec = {} if runtime is None else runtime.spec
    labels = {**(spec.get("labels") or {}), **(metadata.get("labels") or {}), **(predictor.get("labels") or {})}
    own = _handed_down(metadata.get("annotations") or {}) | ({} if uri is None else {SOURCE_URI: uri})
    given, asked = (_handed_down(one.get("annotations") or {}) for one in (spec, predictor))
    return {
        "namespace": metadata["namespace"],
        "labels": {**labels, SERVICE_LABEL: metadata["name"], COMPONENT_LABEL: PREDICTOR},
        "annotations": {**given, **own, **asked},
    }


def _handed_down(annotations: Object) -> Object:
    return {name: value for name, value in annotations.items() if name not in KEPT_TO_ITSELF}


def deployment(service: Object, name: str, own: Object, spec: Object, replicas: int, strategy: Object | None) -> Object:
    app = {"app": app_label(name)}
    metadata = {**copy.deepcopy(own), "name": name}
    metadata["labels"] |= app
    template = {key: dict(metadata[key]) for key in ("labels", "annotations")}
    return {
        "metadata": {**metadata, "ownerReferences": [owner_reference(INFERENCE_SERVICE, service)]},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": app},
            "template": {"metadata": template, "spec": spec},
            "strategy": copy.deepcopy(strategy) if strategy else _rolling(),
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
    }


def _rolling() -> Object:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


def service_of(service: Object, name: str, own: Object, spec: Object) -> Object:
    """The Service in front of the pods of one Deployment."""
    return {
        "metadata": {
            **copy.deepcopy(own),
            "name": name,
            "ownerReferences": [owner_reference(INFERENCE_SERVICE, service)],
        },
        "spec": {"selector": {"app": app_label(name)}, "ports": [service_port(name, spec)]},
    }


def service_port(name: str, spec: Object) -> Object:
    port = model_port(spec) or {"name": name, "containerPort": MODEL_PORT}
    made = {"port": PORT, "targetPort": port["containerPort"], "protocol": port.get("protocol", "TCP")}
    return {"name": port["name"], **made} if port.get("name") else made


def replica_count(service: Object, predictor: Object) -> int:
    """Of the stable predictor, whose share canaries take over."""
    least: int | None = predictor.get("minReplicas")
    canaries = service["spec"].get("canary") or ()
    if canaries and least is not None:
        least = max(least - sum(canary_replicas(service, one) for one in canaries), 1)
    annotations = service["metadata"].get("annotations") or {}
    if annotations.get(AUTOSCALER) == "none":
        return 1 if least is None else least
    return max(least or 1, 1)


def canary_replicas(service: Object, canary: Object) -> int:
    least: int | None = canary["predictor"].get("minReplicas")
    if least is not None:
        return least
    stable: int = service["spec"]["predictor"].get("minReplicas", 1)
    share: int = canary["trafficPercent"]
    return math.ceil(stable * share / 100)


def canary_predictor(stable: Object, canary: Object) -> Object:
    """The stable one with what the canary says: its lists take the place of the stable ones, all else is merged."""
    merged: Object = _overridden(stable, canary["predictor"])
    for field in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
        merged.pop(field, None)
    return merged


def _overridden(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        kept = {name: copy.deepcopy(value) for name, value in below.items() if name not in above}
        return kept | {name: _overridden(below.get(name), value) for name, value in above.items()}
    # What is empty says nothing.
    return copy.deepcopy(below if above in ("", 0, [], None) and below is not None else above)


def path_prefix(namespace: str, name: str) -> str:
    return f"/serving/{namespace}/{name}"


def backends(service: Object) -> list[tuple[str, int]]:
    """The Services that requests go to and their shares; a canary that is not ready gets none."""
    name, spec = service["metadata"]["name"], service["spec"]
    stable = predictor_name(name, spec["predictor"].get("name"))
    ready = {one["name"] for one in (service.get("status") or {}).get("canaryStatuses") or () if one["ready"]}
    canaries = [one for one in spec.get("canary") or () if one["predictor"]["name"] in ready]
    shares = [(predictor_name(name, one["predictor"]["name"]), one["trafficPercent"]) for one in canaries]
    return [(stable, 100 - sum(share for _, share in shares)), *shares]


def http_route(kind: Kind, owner: Object, name: str, shares: Sequence[tuple[str, int]], timeout: int | None) -> Object:
    metadata = owner["metadata"]
    namespace = metadata["namespace"]
    headers = [
        {"name": "KServe-Isvc-Name", "value": metadata["name"]},
        {"name": "KServe-Isvc-Namespace", "value": namespace},
    ]
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path_prefix(namespace, name)}}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}},
            {"type": "URLRewrite", "urlRewrite": rewrite},
        ],
        "backendRefs": [_backend(namespace, one, weight) for one, weight in shares],
        "timeouts": {"request": f"{_SECONDS if timeout is None else timeout}s"},
    }
    handed_down = {
        "labels": dict(metadata.get("labels") or {}),
        "annotations": _handed_down(metadata.get("annotations") or {}),
    }
    return {
        "metadata": {
            **{field: value for field, value in handed_down.items() if value},
            "name": name,
            "namespace": namespace,
            "ownerReferences": [owner_reference(kind, owner)],
        },
        "spec": {"parentRefs": [{**_GATEWAY, "name": "kserve-ingress-gateway"}], "rules": [rule]},
    }


def _backend(namespace: str, service: str, weight: int) -> Object:
    reference = {"group": "", "kind": "Service", "name": service, "namespace": namespace, "port": PORT}
    return {**reference, "weight": weight}


def route_complaint(route: Object | None) -> tuple[str, str] | None:
    """Reason and message of IngressReady while the gateway has not taken the route; None when it has."""
    parents = ((route or {}).get("status") or {}).get("parents") or []
    if route is None:
        return "InferenceService Deployment NotReady", "InferenceService HTTPRoute not created"
    if not parents:
        return "ParentStatusNotAvailable", "InferenceService HttpRouteNotReady"
    for parent in parents:
        for condition in parent.get("conditions") or ():
            if condition["status"] == "False":
                return condition["reason"], f"InferenceService {condition['message']}"
    return None


def fingerprint(template: Object) -> str:
    """A text that is the same for the same template."""
    return json.dumps(template, sort_keys=True)
