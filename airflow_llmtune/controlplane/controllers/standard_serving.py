"""InferenceServices in Standard mode: a Deployment and a Service, and the same for each canary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.serving_names import (
    COMPONENT_LABEL,
    PREDICTOR,
    SERVICE_LABEL,
    app_label,
    is_stopped,
    predictor_name,
)
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE, POD, SERVICE
from airflow_llmtune.controlplane.controllers import inference_service_status as told
from airflow_llmtune.controlplane.controllers.inference_service_parts import (
    backends,
    canary_predictor,
    canary_replicas,
    deployment,
    http_route,
    path_prefix,
    replica_count,
    route_complaint,
    service_of,
)
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions
from airflow_llmtune.controlplane.controllers.model_status import set_model_status
from airflow_llmtune.controlplane.controllers.owned_objects import OwnedObjects
from airflow_llmtune.controlplane.controllers.predictor_parts import parts, set_runtime

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]


class StandardServing:
    """One look at one service; ``service`` has its status changed in place."""

    def __init__(self, registry: Registry, service: Object, conditions: LivingConditions, gateway_url: str) -> None:
        self._registry = registry
        self._service = service
        self._conditions = conditions
        self._name = predictor_name(service["metadata"]["name"], service["spec"]["predictor"].get("name"))
        self._owned = OwnedObjects(registry, service)
        metadata = service["metadata"]
        self._url = f"{gateway_url}{path_prefix(metadata['namespace'], metadata['name'])}"

    def run(self) -> bool:
        """False when it is to be looked at again soon, and the status not to be told before."""
        predictor = self._service["spec"]["predictor"]
        made = parts(self._registry, self._service, predictor)
        set_runtime(self._service["status"], made.runtime)
        told.set_deployment(self._conditions, self._apply_stable(made.own, made.spec), self._url)
        self._apply_canaries()
        return self._tell_model()

    def stop(self) -> None:
        for one in self._owned.list(DEPLOYMENT, self._selector):
            self._owned.delete(DEPLOYMENT, one["metadata"]["name"])
        for one in self._owned.list(SERVICE, self._selector):
            self._owned.delete(SERVICE, one["metadata"]["name"])
        self._owned.delete(HTTP_ROUTE, self._service["metadata"]["name"])

    def set_ingress(self) -> None:
        """The route is made once the predictor is ready, and stays when it is not any more."""
        status = self._service["status"]
        if not self._conditions.is_true(told.READY):
            self._conditions.mark(told.INGRESS, "False", "Predictor ingress not created")
        else:
            timeout = self._service["spec"]["predictor"].get("timeout")
            name, shares = self._service["metadata"]["name"], backends(self._service)
            self._owned.apply(HTTP_ROUTE, http_route(INFERENCE_SERVICE, self._service, name, shares, timeout))
        complaint = route_complaint(self._owned.find(HTTP_ROUTE, self._service["metadata"]["name"]))
        if complaint is not None:
            self._conditions.mark(told.INGRESS, "False", *complaint)
            return
        self._conditions.mark(told.INGRESS, "True")
        status["url"] = self._url
        host = f"{self._name}.{self._service['metadata']['namespace']}.svc.cluster.local"
        status["address"] = {"url": f"http://{host}"}

    @property
    def _selector(self) -> str:
        return f"{SERVICE_LABEL}={self._service['metadata']['name']},{COMPONENT_LABEL}={PREDICTOR}"

    def _apply_stable(self, own: Object, spec: Object) -> Object:
        predictor = self._service["spec"]["predictor"]
        count = replica_count(self._service, predictor)
        try:
            return self._apply(self._name, own, spec, count, predictor.get("deploymentStrategy"))
        except ApiError as error:
            told.set_reconcile_error(self._conditions, f"fails to reconcile predictor: {error}")
            raise

    def _apply(self, name: str, own: Object, spec: Object, count: int, strategy: Object | None) -> Object:
        self._owned.apply(SERVICE, service_of(self._service, name, own, spec))
        return self._owned.apply(DEPLOYMENT, deployment(self._service, name, own, spec, count, strategy))

    def _apply_canaries(self) -> None:
        stable, statuses, kept = self._service["spec"]["predictor"], [], {self._name}
        for canary in self._service["spec"].get("canary") or ():
            predictor = canary_predictor(stable, canary)
            made = parts(self._registry, self._service, predictor, with_uris=False)
            kept.add(made.name)
            applied = self._apply(made.name, made.own, made.spec, canary_replicas(self._service, canary), None)
            available = (applied.get("status") or {}).get("availableReplicas", 0)
            name, percent = predictor["name"], canary["trafficPercent"]
            status = {"name": name, "ready": available > 0, "trafficPercent": percent}
            statuses.append({**status, "modelStatus": {"transitionStatus": ""}})
        told.set_canaries(self._conditions, statuses, stopped=is_stopped(self._service))
        for kind in (DEPLOYMENT, SERVICE):
            for one in self._owned.list(kind, self._selector):
                if one["metadata"]["name"] not in kept:
                    self._owned.delete(kind, one["metadata"]["name"])

    def _tell_model(self) -> bool:
        namespace = self._service["metadata"]["namespace"]
        pods, _ = self._registry.list(POD, namespace, label_selector=f"app={app_label(self._name)}")
        ready = told.ready_value(self._service["status"]) == "True"
        return set_model_status(self._service["status"], pods, is_ready=ready, failed=False)
