"""The LLMInferenceService controller (KServe 0.20): replicas of one pod behind a Service and a route."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.serving_names import is_stopped
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, HTTP_ROUTE, LLM_INFERENCE_SERVICE, SERVICE, Kind
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers.inference_service_parts import route_complaint
from airflow_llmtune.controlplane.controllers.inference_service_status import ready_value
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions, says_the_same
from airflow_llmtune.controlplane.controllers.llm_inference_service_parts import (
    AdapterError,
    adapters,
    deployment,
    has_route,
    names,
    path_prefix,
    route,
    workload_readiness,
    workload_service,
)
from airflow_llmtune.controlplane.controllers.owned_objects import OwnedObjects
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import Controller

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]

_DEPENDENTS = ("PresetsCombined", "WorkloadsReady", "RouterReady")
_FINALIZER = "serving.kserve.io/llmisvc-finalizer"
_STOPPED = ("False", "Stopped", "Service is stopped")


class LLMInferenceServiceController(Controller):
    kind = LLM_INFERENCE_SERVICE
    owns = (DEPLOYMENT, SERVICE, HTTP_ROUTE)

    def __init__(self, registry: Registry, clock: Clock, gateway_url: Callable[[], str]) -> None:
        super().__init__(registry)
        self._clock = clock
        self._gateway_url = gateway_url
        self._retries = RetryDelays()

    async def reconcile(self, namespace: str, name: str) -> float | None:
        stored = self.registry.find(LLM_INFERENCE_SERVICE, namespace, name)
        if stored is None:
            return None
        if "deletionTimestamp" in stored["metadata"] or _FINALIZER not in stored["metadata"].get("finalizers", ()):
            self._hold(stored)
            return None  # It is looked at again, as it has changed.
        service = copy.deepcopy(stored)
        status = service.setdefault("status", {})
        conditions = LivingConditions(status, _DEPENDENTS, timestamp(self._clock()))
        conditions.initialize()
        status["observedGeneration"] = service["metadata"]["generation"]
        error = self._run(service, conditions)
        self._save(stored, service)
        uid = stored["metadata"]["uid"]
        if error is None:
            self._retries.after_success(uid)
            return None
        self.registry.record_event(service, "Warning", "Error", f"Reconciliation failed: {error}")
        return self._retries.after_failure(uid)

    def _hold(self, service: Object) -> None:
        """The finalizer is given to a new one, and taken from one that is deleted."""
        others = [one for one in service["metadata"].get("finalizers", ()) if one != _FINALIZER]
        is_going = "deletionTimestamp" in service["metadata"]
        service["metadata"]["finalizers"] = others if is_going else [*others, _FINALIZER]
        self.registry.update(LLM_INFERENCE_SERVICE, service)

    def _run(self, service: Object, conditions: LivingConditions) -> str | None:
        """What went wrong, if anything."""
        owned = OwnedObjects(self.registry, service)
        try:
            adapters(service["spec"])
        except AdapterError as error:
            text = f"failed to enumerate LoRA adapters: {error}"
            conditions.mark("PresetsCombined", "False", "CombineBaseError", text)
            return text
        conditions.mark("PresetsCombined", "True")
        if is_stopped(service):
            self._stop(service, conditions, owned)
            return None
        try:
            made = owned.apply(DEPLOYMENT, deployment(service, self._find))
            owned.apply(SERVICE, workload_service(service))
        except ApiError as error:
            if error.reason == "Conflict":
                raise
            _mark_workload(conditions, "False", "ReconcileSingleNodeWorkloadError", str(error))
            return f"failed to reconcile workload: {error}"
        _mark_workload(conditions, *workload_readiness(made))
        self._set_route(service, conditions, owned)
        _set_workloads(service, made)
        return None

    def _find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self.registry.find(kind, namespace, name)

    def _stop(self, service: Object, conditions: LivingConditions, owned: OwnedObjects) -> None:
        for kind, name in zip((DEPLOYMENT, SERVICE, HTTP_ROUTE), names(service), strict=True):
            owned.delete(kind, name)
        _mark_workload(conditions, *_STOPPED)
        conditions.mark("HTTPRoutesReady", *_STOPPED)
        conditions.mark("RouterReady", *_STOPPED)
        for field in ("workloads", "router", "url", "addresses"):
            service["status"].pop(field, None)

    def _set_route(self, service: Object, conditions: LivingConditions, owned: OwnedObjects) -> None:
        status, name = service["status"], names(service)[2]
        if not has_route(service):
            owned.delete(HTTP_ROUTE, name)
            for type_ in ("HTTPRoutesReady", "GatewaysReady"):
                conditions.clear(type_)
            conditions.mark("RouterReady", "True")
            host = f"{names(service)[1]}.{service['metadata']['namespace']}.svc.cluster.local"
            status["addresses"] = [{"url": f"http://{host}"}]
            status.pop("url", None)
            return
        complaint = route_complaint(owned.apply(HTTP_ROUTE, route(service)))
        conditions.mark("GatewaysReady", "True")
        if complaint is None:
            conditions.mark("HTTPRoutesReady", "True")
            conditions.mark("RouterReady", "True")
        else:
            place = f"{service['metadata']['namespace']}/{name}"
            text = f"The following HTTPRoutes are not ready: [{place}: {complaint[1]}]"
            for type_ in ("HTTPRoutesReady", "RouterReady"):
                conditions.mark(type_, "False", "HTTPRoutesNotReady", text)
        status["url"] = f"{self._gateway_url()}{path_prefix(service)}"
        status["addresses"] = [{"url": status["url"]}]

    def _save(self, stored: Object, service: Object) -> None:
        before, status = stored.get("status") or {}, service["status"]
        if says_the_same(status, before):
            return
        self.registry.update_status(LLM_INFERENCE_SERVICE, service)
        name, was, now = service["metadata"]["name"], ready_value(before), ready_value(status)
        if was == "True" and now == "False":
            failing = [
                one["type"] for one in status["conditions"] if one["status"] == "False" and one["type"] != "Ready"
            ]
            text = f"LLMInferenceService [{name}] is no longer Ready because of: {', '.join(failing)}"
            self.registry.record_event(service, "Warning", "LLMInferenceServiceNotReady", text)
        elif was != "True" and now == "True":
            text = f"LLMInferenceService [{name}] is Ready"
            self.registry.record_event(service, "Normal", "LLMInferenceServiceReady", text)


def _mark_workload(conditions: LivingConditions, value: str, reason: str, message: str) -> None:
    conditions.mark("MainWorkloadReady", value, reason, message)
    conditions.mark("WorkloadsReady", value, reason, message)


def _set_workloads(service: Object, made: Object) -> None:
    workload, front, _ = names(service)
    available = (made.get("status") or {}).get("availableReplicas", 0)
    service["status"]["workloads"] = {
        "primary": {"apiGroup": "apps", "kind": "Deployment", "name": workload, "readyReplicas": available},
        "service": {"kind": "Service", "name": front},
    }
