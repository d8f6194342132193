"""The pod of a predictor: its runtime's containers with what the model asks for, or containers of its own. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import MAIN_CONTAINER, MODEL_PORT, TRANSFORMER_CONTAINER
from airflow_llmtune.controlplane.admission.serving_schema import POD_FIELDS
from airflow_llmtune.controlplane.apiserver.patch import strategic_merge_patch
from airflow_llmtune.controlplane.controllers.serving_runtimes import InvalidSpecError, Runtime

Object = dict[str, Any]

_OF_MODEL = ("modelFormat", "runtime", "storageUri", "runtimeVersion", "protocolVersion", "storage", "confidential")
_OF_RUNTIME = ("nodeSelector", "affinity", "tolerations", "volumes", "imagePullSecrets", "schedulerName")
_PLACEHOLDER = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_TAG = re.compile(r":[\w.\-]*$")
_GPU_TAGGED = ("tensorflow-serving", "torchserve", "huggingfaceserver")


def pod_spec(service: Object, predictor: Object, runtime: Runtime | None) -> Object:
    """``runtime`` is None for a predictor with containers of its own. Raises InvalidSpecError."""
    own = {name: copy.deepcopy(predictor[name]) for name in POD_FIELDS if name in predictor}
    spec = own if runtime is None else _of_runtime(service["metadata"], predictor, own, runtime)
    for container in spec["containers"]:
        env = [one for one in container.get("env") or () if one["name"] != "INFERENCE_SERVICE_NAME"]
        container["env"] = [*env, {"name": "INFERENCE_SERVICE_NAME", "value": service["metadata"]["name"]}]
        if container["name"] in (MAIN_CONTAINER, TRANSFORMER_CONTAINER):
            container.setdefault("readinessProbe", _default_probe(container))
    return spec


def model_port(spec: Object) -> Object | None:
    """The first port of the container that requests reach."""
    beside = (one for one in spec["containers"] if one["name"] == TRANSFORMER_CONTAINER)
    ports = next(beside, spec["containers"][0]).get("ports") or []
    return dict(ports[0]) if ports else None


def _default_probe(container: Object) -> Object:
    port = (container.get("ports") or [{"containerPort": MODEL_PORT}])[0]["containerPort"]
    limits = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    return {"tcpSocket": {"port": port}, **limits}


def _of_runtime(metadata: Object, predictor: Object, own: Object, runtime: Runtime) -> Object:
    containers = {one["name"]: one for one in runtime.spec.get("containers") or ()}
    if MAIN_CONTAINER not in containers:
        text = f"failed to find {MAIN_CONTAINER} in ServingRuntime containers"
        raise InvalidSpecError("InvalidPredictorSpec", text, text)
    model = predictor["model"]
    asked = {name: value for name, value in model.items() if name not in _OF_MODEL}
    main = _expanded(_merged(containers.pop(MAIN_CONTAINER), asked), metadata, runtime)
    main["image"] = _image(main, model.get("runtimeVersion"), runtime)
    beside = {one["name"]: one for one in own.pop("containers", ())}
    given, changed = containers.pop(TRANSFORMER_CONTAINER, None), beside.pop(TRANSFORMER_CONTAINER, None)
    transformer = given if changed is None else changed if given is None else _merged(given, changed)
    base = {name: copy.deepcopy(runtime.spec[name]) for name in _OF_RUNTIME if name in runtime.spec}
    transformers = [] if transformer is None else [_expanded(transformer, metadata, runtime)]
    others = [*copy.deepcopy(list(containers.values())), *beside.values()]
    return {**strategic_merge_patch(base, own), "containers": [main, *transformers, *others]}


def _merged(container: Object, change: Object) -> Object:
    """Arguments are added; a variable's new source takes the place of its value, and the other way round."""
    merged = strategic_merge_patch(container, change)
    merged["name"] = container["name"]
    words = [*(container.get("args") or ()), *(change.get("args") or ())]
    if words:
        merged["args"] = words
    changed = {one["name"]: one for one in change.get("env") or ()}
    for variable in merged.get("env") or ():
        new = changed.get(variable["name"], {})
        if variable.get("value") and variable.get("valueFrom") is not None:
            variable.pop("value" if new.get("valueFrom") is not None else "valueFrom")
    return merged


def _expanded(container: Object, metadata: Object, runtime: Runtime) -> Object:
    """With the service's metadata in place of ``{{.Name}}`` and its like, in all texts."""
    try:
        expanded: Object = _expand(container, metadata)
    except KeyError:
        text = f"failed to replace placeholders in serving runtime {runtime.name} Container {container['name']}"
        raise InvalidSpecError("InvalidPredictorSpec", text, text) from None
    return expanded


def _expand(value: Any, metadata: Object) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _field(match[1], metadata), value)
    if isinstance(value, list):
        return [_expand(one, metadata) for one in value]
    if isinstance(value, dict):
        return {name: _expand(one, metadata) for name, one in value.items()}
    return value


def _field(path: str, metadata: Object) -> str:
    """Raises KeyError for what the service does not have a field for."""
    match path.lstrip(".").split("."):
        case ["Name" | "Namespace" as name] if path.startswith("."):
            return str(metadata[name.lower()])
        case ["Labels" | "Annotations" as name, key] if path.startswith("."):
            return str((metadata.get(name.lower()) or {}).get(key, "<no value>"))
    raise KeyError(path)


def _image(container: Mapping[str, Any], version: str | None, runtime: Runtime) -> str:
    """Another tag for a version, and the build that suits a pod with or without a GPU."""
    image = str(container.get("image", ""))
    tag = _TAG.search(image)
    if "@sha256:" in image:
        return image
    if version is not None:
        return f"{_TAG.sub('', image)}:{version}"
    if tag is None:
        return image
    limits = (container.get("resources") or {}).get("limits") or {}
    has_gpu = any(name == "nvidia.com/gpu" or name.startswith("nvidia.com/mig-") for name in limits)
    if has_gpu and runtime.server_type in _GPU_TAGGED and not image.endswith("-gpu"):
        return f"{image}-gpu"
    name = image[: tag.start()]
    if not has_gpu and runtime.server_type == "vllmserver" and not name.endswith("-cpu"):
        return f"{name}-cpu{tag[0]}"
    return image
