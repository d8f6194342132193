"""KServe's rules for a predictor's scaling, by who would scale it. Pure."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import AUTOSCALER, MODE, STANDARD
from airflow_llmtune.controlplane.admission.webhook_denial import DenialError

Object = dict[str, Any]

_KNATIVE_CLASS = "autoscaling.knative.dev/class"
_HPA_CLASS = "hpa.autoscaling.knative.dev"


def check_scaling(predictor: Object, annotations: Object) -> None:
    """Raises DenialError."""
    if annotations.get(MODE) == STANDARD:
        checks = {"hpa": _check_hpa, "keda": _check_keda}
        check = checks.get(annotations.get(AUTOSCALER, ""))
        if check is not None:
            check(predictor)
    elif annotations.get(_KNATIVE_CLASS) == _HPA_CLASS:
        _check_hpa(predictor)
    else:
        _check_knative(predictor)


def _check_hpa(predictor: Object) -> None:
    metric, target = predictor.get("scaleMetric", "cpu"), predictor.get("scaleTarget")
    if metric not in ("cpu", "memory"):
        raise DenialError(f"[{metric}] is not a supported metric")
    if target is not None and ((metric == "cpu" and target < 1) or target > 100):
        raise DenialError("the target utilization percentage should be a [1-100] integer")
    if target is not None and metric == "memory" and target < 1:
        raise DenialError("the target memory should be greater than 1 MiB")
    for one in (predictor.get("autoScaling") or {}).get("metrics") or ():
        if one.get("type") != "Resource":
            raise DenialError(
                f"invalid HPA metric source type with value [{one.get('type', '')}],"
                "valid metric source types are Resource"
            )
        if one.get("resource") is None:
            raise DenialError("metricSpec.Resource is not set for resource metric source type")


def _check_keda(predictor: Object) -> None:
    if predictor.get("scaleMetric") is not None:
        raise DenialError("ScaleMetric is not supported for KEDA")


def _check_knative(predictor: Object) -> None:
    if predictor.get("deploymentStrategy") is not None:
        raise DenialError("customizing deploymentStrategy is only supported for raw deployment mode")
    metric, target = predictor.get("scaleMetric", "concurrency"), predictor.get("scaleTarget")
    if metric not in ("concurrency", "rps"):
        raise DenialError(f"[{metric}] is not a supported metric")
    if metric == "rps" and target is not None and target < 1:
        raise DenialError("the target for rps should be greater than 1")
