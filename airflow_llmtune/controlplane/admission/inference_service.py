"""KServe's validator of InferenceServices (0.20), with its texts: the first mistake is told."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_llmtune.controlplane.admission.inference_service_defaults import is_custom
from airflow_llmtune.controlplane.admission.inference_service_scaling import check_scaling
from airflow_llmtune.controlplane.admission.serving_names import (
    AUTOSCALER,
    LEGACY_MODES,
    MAIN_CONTAINER,
    MODE,
    STANDARD,
    STORAGE_URI_VARIABLE,
    TRANSFORMER_CONTAINER,
)
from airflow_llmtune.controlplane.admission.serving_schema import FRAMEWORKS
from airflow_llmtune.controlplane.admission.storage_uris import check_storage_uris
from airflow_llmtune.controlplane.admission.webhook_denial import DenialError

Object = dict[str, Any]

WEBHOOK = "inferenceservice.kserve-webhook-server.validator"

_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
_NAME_RULE = (
    'the InferenceService "{name}" is invalid: a InferenceService name must consist of lower case alphanumeric '
    'characters or \'-\', and must start with alphabetical character. (e.g. "my-name" or "abc-123", '
    "regex used for validation is '{rule}')"
)
_AUTOSCALERS = ("hpa", "external", "keda", "none")
_BLOCKED = "PYTHONPATH"
_IMPLEMENTATIONS = (
    "Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, Paddle, Model, "
    "StorageUris, StorageContainerName, WorkerSpec, PodSpec"
)
_NOT_HERE = {
    "workerSpec": "a model runs in one pod",
    "logger": "no agent runs beside the model",
    "batcher": "no agent runs beside the model",
}


def check_inference_service(service: Object, old: Object | None) -> None:
    """Raises DenialError."""
    if old is not None:
        _check_change(service, old)
    name, annotations = service["metadata"]["name"], service["metadata"].get("annotations") or {}
    spec, predictor = service["spec"], service["spec"]["predictor"]
    if not re.fullmatch(_NAME, name):
        raise DenialError(_NAME_RULE.format(name=name, rule=_NAME))
    autoscaler = annotations.get(AUTOSCALER)
    if autoscaler is not None and autoscaler not in _AUTOSCALERS:
        raise DenialError(f"[{autoscaler}] is not a supported autoscaler class type")
    _check_variables(name, predictor)
    _check_beside(predictor)
    _check_model(predictor)
    check_storage_uris(storage_uri(predictor), predictor.get("storageUris"))
    for field in ("transformer", "explainer"):
        if spec.get(field) is not None:
            raise DenialError(f"spec.{field} is not supported here: only predictors are run")
    _check_predictor(predictor, annotations)
    _check_canaries(spec, annotations)
    _check_runnable(predictor)


def storage_uri(predictor: Object) -> str | None:
    """Where its one model comes from."""
    model = predictor.get("model")
    if model is not None:
        found: str | None = model.get("storageUri")
        return found
    if is_custom(predictor):
        for container in predictor["containers"]:
            if container.get("name") == MAIN_CONTAINER:
                return _variable(container, STORAGE_URI_VARIABLE)
    return None


def _variable(container: Object, name: str) -> str | None:
    return next((str(one.get("value", "")) for one in container.get("env") or () if one["name"] == name), None)


def _check_change(service: Object, old: Object) -> None:
    mode = (old.get("status") or {}).get("deploymentMode")
    wanted = (service["metadata"].get("annotations") or {}).get(MODE)
    now = LEGACY_MODES.get(mode or "", mode)
    if mode and wanted is not None and wanted != now:
        raise DenialError(f"update rejected: deploymentMode cannot be changed from '{now}' to '{wanted}'")
    new_predictor, old_predictor = service["spec"]["predictor"], old["spec"]["predictor"]
    if new_predictor.get("name", "") != old_predictor.get("name", "") and (
        (storage_uri(new_predictor) or "") == (storage_uri(old_predictor) or "")
    ):
        raise DenialError("predictor.name change requires a model change (e.g. storageUri)")


def _check_variables(name: str, predictor: Object) -> None:
    model = predictor.get("model")
    containers = [*(predictor.get("containers") or ()), *(predictor.get("initContainers") or ())]
    for container in [*containers, *([] if model is None else [model])]:
        if _variable(container, _BLOCKED) is not None:
            shown = json.dumps(container.get("name", ""))
            raise DenialError(
                f"the InferenceService {json.dumps(name)} is invalid: setting {_BLOCKED} in container {shown} is not "
                "allowed for security reasons"
            )


def _check_beside(predictor: Object) -> None:
    for container in predictor.get("containers") or ():
        if container["name"] == TRANSFORMER_CONTAINER:
            if _variable(container, STORAGE_URI_VARIABLE) is not None:
                raise DenialError("storage uri should not be specified in transformer container")
            return


def _check_model(predictor: Object) -> None:
    for field in (*FRAMEWORKS, "model"):
        if (predictor.get(field) or {}).get("name"):
            raise DenialError("the 'name' field is not allowed in standard predictor")


def implementations(predictor: Object) -> int:
    """How many ways to serve it names."""
    found = sum(predictor.get(field) is not None for field in (*FRAMEWORKS, "model"))
    containers = predictor.get("containers") or []
    found += sum(one.get("name") == MAIN_CONTAINER for one in containers)
    return found or int(bool(containers))


def _check_predictor(predictor: Object, annotations: Object) -> None:
    if implementations(predictor) != 1:
        raise DenialError(f"exactly one of [{_IMPLEMENTATIONS}] must be specified in PredictorSpec")
    _check_protocol(predictor)
    _check_extension(predictor)
    check_scaling(predictor, annotations)


def _check_protocol(predictor: Object) -> None:
    protocol = _variable(predictor["containers"][0], "PROTOCOL") if is_custom(predictor) else None
    if protocol is not None and protocol not in ("v1", "v2"):
        raise DenialError(f"invalid protocol v1, v2. Must be one of [{protocol}]")


def _check_extension(predictor: Object) -> None:
    if (predictor.get("containerConcurrency") or 0) < 0:
        raise DenialError("parallelism cannot be less than 0")
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    if least < 0:
        raise DenialError("'MinReplicas' cannot be less than 0")
    if most < 0:
        raise DenialError("'MaxReplicas' cannot be less than 0")
    if least > most and most != 0:
        raise DenialError("'MinReplicas' cannot be greater than MaxReplicas")
    if predictor.get("logger") is not None and not predictor["logger"].get("mode"):
        raise DenialError("invalid logger type")


def _check_canaries(spec: Object, annotations: Object) -> None:
    canaries, stable = spec.get("canary") or [], spec["predictor"]
    if not canaries:
        return
    if annotations.get(MODE) != STANDARD:
        raise DenialError(f"canary is only supported in {STANDARD} deployment mode")
    if storage_uri(stable) is None and stable.get("model") is None:
        raise DenialError(
            "canary requires a stable predictor with a model (multi-model serving is not supported with canary)"
        )
    names: set[str] = set()
    for index, canary in enumerate(canaries):
        _check_canary_name(index, canary["predictor"].get("name", ""), names, stable.get("name", ""))
        _check_canary(canary, stable)
    total = sum(one["trafficPercent"] for one in canaries)
    if total > 100:
        raise DenialError(f"sum of canary trafficPercent values ({total}) must be <= 100")


def _check_canary_name(index: int, name: str, names: set[str], stable: str) -> None:
    if not name:
        raise DenialError(f"canary[{index}] predictor.name is required")
    if name in names:
        raise DenialError(f'canary predictor.name "{name}" is duplicated')
    names.add(name)
    if name == stable:
        raise DenialError(f'canary predictor.name "{name}" conflicts with stable predictor name')


def _check_canary(canary: Object, stable: Object) -> None:
    predictor = canary["predictor"]
    name = predictor["name"]
    try:
        if implementations(predictor) != 1:
            raise DenialError(f"exactly one of [{_IMPLEMENTATIONS}] must be specified in PredictorSpec")
        _check_protocol(predictor)
        _check_extension(predictor)
    except DenialError as error:
        raise DenialError(f'canary "{name}" predictor: {error}') from None
    if predictor.get("workerSpec") is not None:
        raise DenialError(f'canary "{name}" must not set workerSpec (multi-node is not yet supported for canary)')
    for field in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
        if predictor.get(field):
            raise DenialError(f'canary "{name}" must not set {field} (canary uses fixed replicas)')
    least, most = predictor.get("minReplicas"), stable.get("minReplicas", 1)
    if least is not None and least > most:
        raise DenialError(
            f'canary "{name}" minReplicas ({least}) must not exceed stable predictor minReplicas ({most})'
        )
    _check_runnable(predictor)


def _check_runnable(predictor: Object) -> None:
    """What KServe takes and the control plane cannot run."""
    for field, why in _NOT_HERE.items():
        if predictor.get(field) is not None:
            raise DenialError(f"spec.predictor.{field} is not supported here: {why}")
    model = predictor.get("model") or {}
    if model.get("storage") is not None:
        raise DenialError("spec.predictor.model.storage is not supported here: give model.storageUri or storageUris")
    if (model.get("confidential") or {}).get("enabled"):
        raise DenialError("spec.predictor.model.confidential is not supported here")
