"""An InferenceService's status as KServe 0.20 writes it, from what has become of its parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import is_stopped
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions

Object = dict[str, Any]

READY = "PredictorReady"
INGRESS = "IngressReady"
CANARY = "CanaryPredictorReady"
STOPPED = "Stopped"
ROUTE, CONFIGURATION = "PredictorRouteReady", "PredictorConfigurationReady"

_DEPENDENTS = (READY, INGRESS)


def conditions_of(service: Object, now: str) -> LivingConditions:
    return LivingConditions(service.setdefault("status", {}), _DEPENDENTS, now)


def set_deployment(conditions: LivingConditions, deployment: Object, url: str) -> None:
    """Standard mode: the predictor is as ready as its Deployment is available, whatever an update is up to."""
    status = conditions.status
    value, reason, message = deployment_readiness(deployment)
    predictor = _predictor(status)
    if value == "True":
        predictor["url"] = url
    conditions.mark(READY, value, reason, message)
    observed = (deployment.get("status") or {}).get("observedGeneration")
    if observed is None:
        status.pop("observedGeneration", None)
    else:
        # Of the Deployment, not of the service: so it is in KServe.
        status["observedGeneration"] = observed


def deployment_readiness(deployment: Object) -> tuple[str, str, str]:
    """Status, reason and message of PredictorReady."""
    found = {one["type"]: one for one in (deployment.get("status") or {}).get("conditions") or ()}
    available, progressing = found.get("Available", {}), found.get("Progressing", {})
    told = ("False", "", "")
    if available.get("status") == "True":
        told = _told("True", available)
    if progressing.get("status") == "False" and progressing.get("message"):
        told = _told("False", progressing)
    elif progressing.get("status") == "True":
        if progressing.get("reason") == "NewReplicaSetAvailable":
            told = _told("True", progressing)
        elif available.get("status") != "True":
            told = _told("Unknown", progressing)
    if available.get("status") == "False":
        told = _told("False", available)
    failure = found.get("ReplicaFailure", {})
    return _told("False", failure) if failure.get("status") == "True" else told


def _told(value: str, condition: Mapping[str, Any]) -> tuple[str, str, str]:
    return value, str(condition.get("reason", "")), str(condition.get("message", ""))


def _predictor(status: Object) -> Object:
    found: Object = status.setdefault("components", {}).setdefault("predictor", {})
    return found


def set_reconcile_error(conditions: LivingConditions, message: str) -> None:
    _predictor(conditions.status)
    conditions.mark(READY, "False", "ReconcileFailed", message)


def set_canaries(conditions: LivingConditions, statuses: list[Object], *, stopped: bool) -> None:
    status = conditions.status
    if not statuses:
        status.pop("canaryStatuses", None)
        conditions.clear(CANARY)
        return
    status["canaryStatuses"] = statuses
    if stopped:
        conditions.mark(CANARY, "False", "Stopped")
    elif all(one["ready"] for one in statuses):
        conditions.mark(CANARY, "True", "AllCanariesReady")
    else:
        conditions.mark(CANARY, "False", "CanariesNotReady")


def set_stopped(service: Object, conditions: LivingConditions) -> None:
    """Whether it was told to stop, which it also says when it never was."""
    value = "True" if is_stopped(service) else "False"
    if conditions.find(STOPPED) is None or conditions.value(STOPPED) != value:
        conditions.mark(STOPPED, value)


def forget_all(service: Object, now: str) -> LivingConditions:
    """Of a service that is stopped: nothing but why it is not ready."""
    kept = {name: value for name, value in service["status"].items() if name == "deploymentMode"}
    service["status"] = {**kept, "modelStatus": {"transitionStatus": ""}}
    conditions = conditions_of(service, now)
    conditions.mark(READY, "False", "Stopped")
    return conditions


def set_aggregates(conditions: LivingConditions) -> None:
    """Knative mode: the same once more under the names that span all components."""
    for aggregate, own in (("RoutesReady", ROUTE), ("LatestDeploymentReady", CONFIGURATION)):
        value = conditions.value(own)
        conditions.mark(aggregate, value, "" if value == "True" else f"{own} not ready")


def failing(status: Mapping[str, Any]) -> str:
    """The names of all conditions that are False, as the event lists them."""
    return ", ".join(one["type"] for one in status.get("conditions") or () if one["status"] == "False")


def ready_value(status: Mapping[str, Any]) -> str:
    return next((str(one["status"]) for one in status.get("conditions") or () if one["type"] == "Ready"), "")
