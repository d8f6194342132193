"""The Deployment, the Service and the route of an LLMInferenceService, as KServe's single-node preset makes them. Pure.

The container runs our own model server, which takes vLLM's flags, in place of vLLM.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import INITIALIZER, MODEL_FOLDER
from airflow_llmtune.controlplane.admission.storage_credentials import FindObject
from airflow_llmtune.controlplane.admission.storage_initializer import add_initializer, mount
from airflow_llmtune.controlplane.admission.storage_uris import CLAIM, claim_of, common_parent
from airflow_llmtune.controlplane.apiserver.kinds import LLM_INFERENCE_SERVICE
from airflow_llmtune.controlplane.apiserver.patch import strategic_merge_patch
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from airflow_llmtune.controlplane.controllers.shipped_serving_runtimes import ADDRESS, COMMAND, IMAGE

Object = dict[str, Any]

PORT = 8000
_MAIN = "main"
_ADAPTERS = "/mnt/lora"
_FETCHED = ("hf://", "s3://")
_MORE_ARGUMENTS = "VLLM_ADDITIONAL_ARGS"
_LONGEST_NAME, _HASH = 63, 32


class AdapterError(Exception):
    """An adapter that cannot be had from where it is said to be."""


def child_name(parent: str, suffix: str) -> str:
    """A long name gets a hash in place of its end."""
    if len(parent) + len(suffix) > _LONGEST_NAME:
        digest = hashlib.md5(parent.encode(), usedforsecurity=False).hexdigest()
        parent = f"{parent[: _LONGEST_NAME - _HASH - len(suffix)]}{digest}"
    return f"{parent}{suffix}"


def names(service: Object) -> tuple[str, str, str]:
    """Of the Deployment, the Service and the route."""
    name = service["metadata"]["name"]
    return (
        child_name(name, "-kserve"),
        child_name(name, "-kserve-workload-svc"),
        child_name(name, "-kserve-route"),
    )


def selector(service: Object) -> Object:
    return {
        "app.kubernetes.io/component": "llminferenceservice-workload",
        "app.kubernetes.io/name": service["metadata"]["name"],
        "app.kubernetes.io/part-of": "llminferenceservice",
        "kserve.io/component": "workload",
        "llm-d.ai/role": "both",
    }


def adapters(spec: Object) -> list[tuple[str, str, str]]:
    """Name, place and folder of each, by name. Raises AdapterError."""
    found = sorted((spec["model"].get("lora") or {}).get("adapters") or (), key=lambda one: str(one["name"]))
    return [(one["name"], one["uri"], _folder(one["name"], one["uri"])) for one in found]


def _folder(name: str, uri: str) -> str:
    scheme = uri.partition("://")[0] + "://"
    shown = json.dumps(name)
    if "://" not in uri:
        raise AdapterError(f"LoRA adapter {shown}: invalid URI {json.dumps(uri)}")
    if scheme == "oci://":
        raise AdapterError(
            f"LoRA adapter {shown}: oci:// is not supported for LoRA adapters; use hf://, s3://, or pvc:// instead"
        )
    if scheme not in (*_FETCHED, CLAIM):
        raise AdapterError(
            f"LoRA adapter {shown}: unsupported URI scheme {json.dumps(scheme)}; supported schemes are hf://, s3://, "
            "pvc://"
        )
    return f"{_ADAPTERS}/{re.sub(r'[^a-zA-Z0-9._-]', '-', name)}"


def deployment(service: Object, find: FindObject) -> Object:
    """Raises AdapterError, and ApiError for credentials that are not there."""
    metadata, spec = service["metadata"], service["spec"]
    labels, name = selector(service), names(service)[0]
    template: Object = {"labels": {**labels, **(spec.get("labels") or {})}}
    if spec.get("annotations"):
        template["annotations"] = dict(spec["annotations"])
    made: Object = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": template, "spec": pod_spec(service, find)},
    }
    if "replicas" in spec:
        made["replicas"] = spec["replicas"]
    return {"metadata": _metadata(metadata, name, labels, service), "spec": made}


def _metadata(metadata: Object, name: str, labels: Object, service: Object) -> Object:
    return {
        "name": name,
        "namespace": metadata["namespace"],
        "labels": dict(labels),
        "ownerReferences": [owner_reference(LLM_INFERENCE_SERVICE, service)],
    }


def pod_spec(service: Object, find: FindObject) -> Object:
    spec, namespace = service["spec"], service["metadata"]["namespace"]
    wanted = adapters(spec)
    merged = strategic_merge_patch(_preset(), copy.deepcopy(spec.get("template") or {}))
    main = next(one for one in merged["containers"] if one["name"] == _MAIN)
    main["args"] = _arguments(service, main, wanted)
    _add_models(merged, spec, wanted, namespace, find)
    return merged


def _preset() -> Object:
    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = {
        "name": _MAIN,
        "image": IMAGE,
        "command": list(COMMAND),
        "env": [ADDRESS],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": probe,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {"containers": [container]}


def _arguments(service: Object, main: Object, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
    """The preset's, the adapters', and the author's, which come last so that they win."""
    namespace, model = service["metadata"]["namespace"], service["spec"]["model"]
    own = [*_additional(main), *(main.get("args") or ())]
    given = [] if list(main["command"]) != list(COMMAND) else _serve(namespace, model["name"])
    if not wanted or any("--lora-modules" in one for one in (*main["command"], *own)):
        return [*given, *own]
    return [*given, *_lora(namespace, model["lora"], wanted), *own]


def _serve(namespace: str, name: str) -> list[str]:
    called = [name, f"publishers/{namespace}/models/{name}"]
    return [f"--model={MODEL_FOLDER}", "--host=$(POD_IP)", f"--port={PORT}", "--served-model-name", *called]


def _additional(main: Object) -> list[str]:
    texts = [one.get("value", "") for one in main.get("env") or () if one["name"] == _MORE_ARGUMENTS]
    return [word for text in texts for word in shlex.split(text)]


def _lora(namespace: str, lora: Object, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
    """A limit is only said when the author said it: the server has its own."""
    limits = (("maxRank", "max-lora-rank"), ("maxAdapters", "max-loras"), ("maxCpuAdapters", "max-cpu-loras"))
    said = [f"--{flag}={lora[field]}" for field, flag in limits if field in lora]
    modules = [
        json.dumps({"name": called, "path": folder}, separators=(",", ":"))
        for name, _, folder in wanted
        for called in (name, f"publishers/{namespace}/models/{name}")
    ]
    return ["--enable-lora", *said, "--lora-modules", *modules]


def _add_models(
    pod: Object, spec: Object, wanted: Sequence[tuple[str, str, str]], namespace: str, find: FindObject
) -> None:
    if not (spec.get("storageInitializer") or {}).get("enabled", True):
        return
    change = _taken_initializer(pod)
    models = [("model", spec["model"]["uri"], MODEL_FOLDER), *wanted]
    for name, uri, folder in models:
        if uri.startswith(CLAIM):
            claim, path = claim_of(uri)
            volume = (
                "kserve-pvc-source"
                if name == "model"
                else child_name("lora-pvc-", re.sub(r"[^a-z0-9-]", "-", name.lower()))
            )
            place = {"name": volume, "mountPath": folder, "readOnly": True, **({"subPath": path} if path else {})}
            mount(pod, {"name": volume, "persistentVolumeClaim": {"claimName": claim}}, place, (_MAIN,))
    fetched = [(uri, folder) for _, uri, folder in models if not uri.startswith(CLAIM)]
    if fetched:
        folder = common_parent([folder for _, folder in fetched])
        place = {"name": "kserve-provision-location", "mountPath": folder, "readOnly": True}
        mount(pod, {"name": place["name"], "emptyDir": {}}, place, (_MAIN,))
        add_initializer(pod, [word for pair in fetched for word in pair], place, namespace, {}, find)
        made = pod["initContainers"][-1]
        pod["initContainers"][-1] = {**strategic_merge_patch(made, change), "args": made["args"]}


def _taken_initializer(pod: Object) -> Object:
    """What the author says of the initializer's container, so that it gets credentials for instance."""
    given = pod.pop("initContainers", [])
    others = [one for one in given if one["name"] != INITIALIZER]
    if others:
        pod["initContainers"] = others
    return next((one for one in given if one["name"] == INITIALIZER), {})


def workload_service(service: Object) -> Object:
    labels = {name: value for name, value in selector(service).items() if name.startswith("app.kubernetes.io/")}
    port = {"name": "http", "protocol": "TCP", "appProtocol": "http", "port": PORT, "targetPort": PORT}
    return {
        "metadata": _metadata(service["metadata"], names(service)[1], labels, service),
        "spec": {"type": "ClusterIP", "selector": selector(service), "ports": [port]},
    }


def path_prefix(service: Object) -> str:
    return f"/{service['metadata']['namespace']}/{service['metadata']['name']}"


def has_route(service: Object) -> bool:
    return (service["spec"].get("router") or {}).get("route") is not None


def route(service: Object) -> Object:
    rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
    backend = {"group": "", "kind": "Service", "name": names(service)[1], "port": PORT, "weight": 1}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path_prefix(service)}}],
        "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
        "backendRefs": [backend],
        "timeouts": {"request": "0s", "backendRequest": "0s"},
    }
    gateways = ((service["spec"]["router"].get("gateway") or {}).get("refs")) or [
        {"name": "kserve-ingress-gateway", "namespace": "kserve"}
    ]
    kind = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
    labels = {**selector(service), "app.kubernetes.io/component": "llminferenceservice-router"}
    kept = {name: value for name, value in labels.items() if name.startswith("app.kubernetes.io/")}
    return {
        "metadata": _metadata(service["metadata"], names(service)[2], kept, service),
        "spec": {"parentRefs": [{**kind, **one} for one in gateways], "rules": [rule]},
    }


def workload_readiness(made: Object) -> tuple[str, str, str]:
    """Status, reason and message of MainWorkloadReady."""
    told = ("False", "Progressing", "")
    for one in (made.get("status") or {}).get("conditions") or ():
        if one["type"] == "Available":
            if one["status"] == "True":
                return "True", "", ""
            return "False", str(one.get("reason", "")), str(one.get("message", ""))
    return told
