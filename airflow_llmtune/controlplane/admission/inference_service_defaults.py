"""What KServe's defaulter makes of an InferenceService."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import (
    LEGACY_MODES,
    MAIN_CONTAINER,
    MODE,
    MODEL_FORMAT,
)
from airflow_llmtune.controlplane.admission.serving_schema import FRAMEWORKS

Object = dict[str, Any]

_SECOND_PROTOCOL = ("triton", "onnx", "huggingface")
"""Frameworks that speak v2 when they are given by a field of their own."""


def default_inference_service(service: Object) -> None:
    metadata, predictor = service["metadata"], service["spec"]["predictor"]
    annotations = metadata.get("annotations") or {}
    if annotations.get(MODE) in LEGACY_MODES:
        annotations[MODE] = LEGACY_MODES[annotations[MODE]]
    _default_model(predictor)
    model_format = ((predictor.get("model") or {}).get("modelFormat") or {}).get("name")
    if model_format:
        metadata["annotations"] = {MODEL_FORMAT: model_format, **annotations}
    if is_custom(predictor):
        _default_container(predictor["containers"])


def is_custom(predictor: Object) -> bool:
    """Whether its container serves, and no model of a known format."""
    return bool(predictor.get("containers")) and all(predictor.get(one) is None for one in (*FRAMEWORKS, "model"))


def _default_model(predictor: Object) -> None:
    framework = next((one for one in FRAMEWORKS if predictor.get(one) is not None), None)
    if framework is not None:
        given = predictor.pop(framework)
        if framework in _SECOND_PROTOCOL:
            given.setdefault("protocolVersion", "v2")
        predictor["model"] = {"modelFormat": {"name": framework}, **given}
    model = predictor.get("model")
    if model is not None and model["modelFormat"]["name"] in ("triton", "vLLM"):
        model.setdefault("protocolVersion", "v2")


def _default_container(containers: list[Object]) -> None:
    if len(containers) == 1 or not containers[0].get("name"):
        containers[0]["name"] = MAIN_CONTAINER
