"""The InferenceService controller (KServe 0.20), for predictors in Standard and in Knative mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.serving_names import (
    DEFAULT_MODE,
    DISABLE_AUTO_UPDATE,
    KNATIVE,
    LEGACY_MODES,
    MODE,
    SERVICE_LABEL,
    STANDARD,
    is_stopped,
)
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    DEPLOYMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    SERVICE,
    SERVING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import inference_service_status as told
from airflow_llmtune.controlplane.controllers.knative_serving import KnativeServing
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions, says_the_same
from airflow_llmtune.controlplane.controllers.model_status import set_invalid
from airflow_llmtune.controlplane.controllers.predictor_parts import StorageError
from airflow_llmtune.controlplane.controllers.retry import RetryDelays
from airflow_llmtune.controlplane.controllers.runtime import Controller, Key
from airflow_llmtune.controlplane.controllers.serving_runtimes import InvalidSpecError
from airflow_llmtune.controlplane.controllers.standard_serving import StandardServing

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]

_FINALIZER = "inferenceservice.finalizers"
_SOON_SECONDS = 1.0
_RUNTIME_FIELDS = {SERVING_RUNTIME: "servingRuntimeName", CLUSTER_SERVING_RUNTIME: "clusterServingRuntimeName"}


class InferenceServiceController(Controller):
    kind = INFERENCE_SERVICE
    owns = (DEPLOYMENT, SERVICE, HTTP_ROUTE, POD, SERVING_RUNTIME, CLUSTER_SERVING_RUNTIME)

    def __init__(self, registry: Registry, clock: Clock, gateway_url: Callable[[], str]) -> None:
        super().__init__(registry)
        self._clock = clock
        self._gateway_url = gateway_url
        self._retries = RetryDelays()

    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        """A pod tells whose it is by a label; a runtime concerns those that say that they use it."""
        if kind == POD:
            name = (obj["metadata"].get("labels") or {}).get(SERVICE_LABEL)
            return [] if name is None else [(obj["metadata"]["namespace"], name)]
        field = _RUNTIME_FIELDS.get(kind)
        if field is None:
            return super().keys_for(kind, obj)
        entries = self.registry.entries(INFERENCE_SERVICE, obj["metadata"].get("namespace"))
        return [one.key for one in entries if (one.view.get("status") or {}).get(field) == obj["metadata"]["name"]]

    async def reconcile(self, namespace: str, name: str) -> float | None:
        stored = self.registry.find(INFERENCE_SERVICE, namespace, name)
        if stored is None or not self._is_held(stored):
            return None
        stored = self.registry.get(INFERENCE_SERVICE, namespace, name)
        annotations = stored["metadata"].get("annotations") or {}
        was_ready = told.ready_value(stored.get("status") or {})
        if annotations.get(DISABLE_AUTO_UPDATE) == "true" and was_ready == "True":
            return None
        service = copy.deepcopy(stored)
        conditions = told.conditions_of(service, timestamp(self._clock()))
        conditions.initialize()
        mode = deployment_mode(service)
        uid = stored["metadata"]["uid"]
        try:
            is_told = self._run(service, conditions, mode)
        except (InvalidSpecError, StorageError, ApiError) as error:
            if isinstance(error, ApiError) and error.reason == "Conflict":
                raise
            if isinstance(error, InvalidSpecError):
                set_invalid(service["status"], error.reason, error.message)
            self.registry.record_event(service, "Warning", "InternalError", str(error))
            self._save(stored, service, mode)
            return self._retries.after_failure(uid)
        self._retries.after_success(uid)
        if not is_told:
            return _SOON_SECONDS
        self._save(stored, service, mode)
        return None

    def _is_held(self, service: Object) -> bool:
        """With its finalizer, which it gets at first and loses when it is deleted: then there is nothing to do."""
        metadata = service["metadata"]
        finalizers = metadata.get("finalizers") or []
        if "deletionTimestamp" in metadata:
            if _FINALIZER in finalizers:
                metadata["finalizers"] = [one for one in finalizers if one != _FINALIZER]
                self.registry.update(INFERENCE_SERVICE, service)
            return False
        if _FINALIZER not in finalizers:
            metadata["finalizers"] = [*finalizers, _FINALIZER]
            self.registry.update(INFERENCE_SERVICE, service)
        return True

    def _run(self, service: Object, conditions: LivingConditions, mode: str) -> bool:
        serving = StandardServing if mode == STANDARD else KnativeServing
        one = serving(self.registry, service, conditions, self._gateway_url())
        if is_stopped(service):
            one.stop()
            found = conditions.find(told.READY) or {}
            if (found["status"], found.get("reason")) != ("False", "Stopped"):
                conditions = told.forget_all(service, conditions.now)
            told.set_stopped(service, conditions)
            conditions.mark(told.INGRESS, "False", "Stopped")
            return True
        if not one.run():
            return False
        told.set_stopped(service, conditions)
        if mode == KNATIVE:
            told.set_aggregates(conditions)
        one.set_ingress()
        return True

    def _save(self, stored: Object, service: Object, mode: str) -> None:
        status = service["status"]
        status["deploymentMode"] = mode
        status.setdefault("modelStatus", {"transitionStatus": ""})
        before = stored.get("status") or {}
        if says_the_same(status, before):
            return
        self.registry.update_status(INFERENCE_SERVICE, service)
        name, was, now = service["metadata"]["name"], told.ready_value(before), told.ready_value(status)
        if was == "True" and now == "False":
            text = f"InferenceService [{name}] is no longer Ready because of: {told.failing(status)}"
            self.registry.record_event(service, "Warning", "InferenceServiceNotReady", text)
        elif was != "True" and now == "True":
            text = f"InferenceService [{name}] is Ready"
            self.registry.record_event(service, "Normal", "InferenceServiceReady", text)


def deployment_mode(service: Object) -> str:
    """As it is from its first look on; then its annotation, then the configuration's default counts."""
    noted = (service.get("status") or {}).get("deploymentMode")
    asked = (service["metadata"].get("annotations") or {}).get(MODE, "")
    mode = noted or LEGACY_MODES.get(asked, asked)
    return str(mode) if mode in (STANDARD, KNATIVE) else DEFAULT_MODE
