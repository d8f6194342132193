"""InferenceServices in Knative mode: a Deployment and a Service for each revision, without Knative's own kinds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.admission.serving_names import REVISION_LABEL, ROUTING_TAG, predictor_name
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, HTTP_ROUTE, INFERENCE_SERVICE, POD, SERVICE
from airflow_llmtune.controlplane.controllers import inference_service_status as told
from airflow_llmtune.controlplane.controllers.inference_service_parts import (
    deployment,
    fingerprint,
    http_route,
    path_prefix,
    service_of,
)
from airflow_llmtune.controlplane.controllers.knative_revisions import (
    KnativeStatus,
    Revision,
    Target,
    knative_status,
    needed,
    readiness,
    revision_name,
    set_component,
    targets,
)
from airflow_llmtune.controlplane.controllers.living_conditions import LivingConditions
from airflow_llmtune.controlplane.controllers.model_status import set_model_status
from airflow_llmtune.controlplane.controllers.owned_objects import OwnedObjects
from airflow_llmtune.controlplane.controllers.predictor_parts import Parts, parts, set_runtime

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]

_CONFIGURATION = "serving.knative.dev/configuration"
_NUMBER = "serving.knative.dev/configurationGeneration"
_TEMPLATE = "internal.serving.kserve.io/revision-template"
_SPEC = "internal.serving.kserve.io/knative-spec"
_GENERATION = "internal.serving.kserve.io/knative-generation"
_SCALING = "autoscaling.knative.dev"


class KnativeServing:
    """One look at one service; ``service`` has its status changed in place."""

    def __init__(self, registry: Registry, service: Object, conditions: LivingConditions, gateway_url: str) -> None:
        self._registry = registry
        self._service = service
        self._conditions = conditions
        metadata = service["metadata"]
        self._name = predictor_name(metadata["name"], service["spec"]["predictor"].get("name"))
        self._owned = OwnedObjects(registry, service)
        self._url = f"{gateway_url}{path_prefix(metadata['namespace'], metadata['name'])}"

    def run(self) -> bool:
        """False when it is to be looked at again soon, and the status not to be told before."""
        predictor, status = self._service["spec"]["predictor"], self._service["status"]
        made = parts(self._registry, self._service, predictor)
        set_runtime(status, made.runtime)
        component = status.setdefault("components", {}).setdefault("predictor", {})
        annotations = self._service["metadata"].get("annotations") or {}
        asked = targets(
            predictor,
            component.get("latestRolledoutRevision", ""),
            tag_latest=annotations.get(ROUTING_TAG) == "true",
        )
        try:
            self._make_revision(made, asked)
        except ApiError as error:
            told.set_reconcile_error(self._conditions, f"fails to reconcile predictor: {error}")
            raise
        revisions = self._revisions()
        current = [Revision(name, self._readiness(name, one)) for name, one in revisions.items()]
        knative = knative_status(self._name, current, component.get("latestReadyRevision", ""), asked)
        self._scale(revisions, knative)
        self._route(knative)
        self._tell(component, knative, revisions)
        return self._tell_model(component, knative)

    def stop(self) -> None:
        for name, one in self._revisions().items():
            self._owned.delete(DEPLOYMENT, one["metadata"]["name"])
            self._owned.delete(SERVICE, name)
        self._owned.delete(HTTP_ROUTE, self._service["metadata"]["name"])

    def set_ingress(self) -> None:
        conditions, status = self._conditions, self._service["status"]
        if not conditions.is_true(told.READY):
            value = "Unknown" if conditions.value(told.READY) == "Unknown" else "False"
            conditions.mark(told.INGRESS, value, "Predictor ingress not created")
        if "url" in status["components"]["predictor"]:
            metadata = self._service["metadata"]
            status["url"] = self._url
            status["address"] = {"url": f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local"}
            conditions.mark(told.INGRESS, "True")

    def _revisions(self) -> dict[str, Object]:
        """The Deployments of all revisions by their names, in the order of their making."""
        found = self._owned.list(DEPLOYMENT, f"{_CONFIGURATION}={self._name}")
        found.sort(key=lambda one: int(one["metadata"]["labels"][_NUMBER]))
        return {one["metadata"]["labels"][REVISION_LABEL]: one for one in found}

    def _make_revision(self, made: Parts, asked: list[Target]) -> None:
        """When the template is another one; a change of the traffic only counts as a new generation."""
        own = {**made.own, "annotations": {**_scaling(self._service["spec"]["predictor"]), **made.own["annotations"]}}
        template = _digest({"own": own, "spec": made.spec})
        wanted = _digest({"template": template, "traffic": [str(one) for one in asked]})
        revisions = self._revisions()
        latest = next(reversed(revisions.values()), None)
        marks = {} if latest is None else latest["metadata"]["annotations"]
        if latest is not None and marks[_SPEC] == wanted:
            return
        marks = {_SPEC: wanted, _GENERATION: str(int(marks.get(_GENERATION, 0)) + 1), _TEMPLATE: template}
        if latest is not None and latest["metadata"]["annotations"][_TEMPLATE] == template:
            latest["metadata"]["annotations"] |= marks
            self._registry.update(DEPLOYMENT, latest)
            return
        number = 1 if latest is None else int(latest["metadata"]["labels"][_NUMBER]) + 1
        self._create_revision(number, own, made.spec, marks)

    def _create_revision(self, number: int, own: Object, spec: Object, marks: Object) -> None:
        name = revision_name(self._name, number)
        labels = {_CONFIGURATION: self._name, REVISION_LABEL: name, _NUMBER: str(number)}
        own = {**own, "labels": {**own["labels"], **labels}}
        self._owned.apply(SERVICE, service_of(self._service, name, own, spec))
        made = deployment(self._service, name, own, spec, self._scale_of_one(), None)
        made["metadata"] |= {"name": f"{name}-deployment", "annotations": {**made["metadata"]["annotations"], **marks}}
        self._registry.create(DEPLOYMENT, made)

    def _scale_of_one(self) -> int:
        least: int = self._service["spec"]["predictor"].get("minReplicas", 1)
        return max(least, 1)

    def _pods(self, revision: str) -> list[Object]:
        namespace = self._service["metadata"]["namespace"]
        pods, _ = self._registry.list(POD, namespace, label_selector=f"{REVISION_LABEL}={revision}")
        return sorted(pods, key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)

    def _readiness(self, name: str, found: Object) -> Any:
        return readiness(found, self._pods(name))

    def _scale(self, revisions: dict[str, Object], knative: KnativeStatus) -> None:
        kept = needed(knative)
        for name, one in revisions.items():
            count = self._scale_of_one() if name in kept else 0
            if one["spec"]["replicas"] != count:
                one["spec"]["replicas"] = count
                self._registry.update(DEPLOYMENT, one)

    def _route(self, knative: KnativeStatus) -> None:
        if knative.traffic:
            timeout = self._service["spec"]["predictor"].get("timeout")
            name = self._service["metadata"]["name"]
            self._owned.apply(HTTP_ROUTE, http_route(INFERENCE_SERVICE, self._service, name, knative.shares, timeout))

    def _tell(self, component: Object, knative: KnativeStatus, revisions: dict[str, Object]) -> None:
        set_component(component, knative)
        if knative.readiness.value == "True":
            host = f"{self._name}.{self._service['metadata']['namespace']}.svc.cluster.local"
            component |= {"url": self._url, "address": {"url": f"http://{host}"}}
        for type_, one in (
            (told.READY, knative.readiness),
            (told.ROUTE, knative.routes),
            (told.CONFIGURATION, knative.configurations),
        ):
            self._conditions.mark(type_, one.value, one.reason, one.message)
        marks = revisions[knative.latest_created]["metadata"]["annotations"]
        self._service["status"]["observedGeneration"] = int(marks[_GENERATION])

    def _tell_model(self, component: Object, knative: KnativeStatus) -> bool:
        status = self._service["status"]
        current = component["latestCreatedRevision"] == component.get("latestReadyRevision")
        ready = current and told.ready_value(status) == "True"
        pods = self._pods(knative.latest_created)
        return set_model_status(status, pods, is_ready=ready, failed=knative.failed)


def _digest(value: Object) -> str:
    return hashlib.sha256(fingerprint(value).encode()).hexdigest()[:16]


def _scaling(predictor: Object) -> Object:
    """The annotations that tell Knative how to scale; nobody here acts on them."""
    found = {f"{_SCALING}/class": f"kpa.{_SCALING}", f"{_SCALING}/min-scale": str(predictor.get("minReplicas", 1))}
    for field, name in (("scaleTarget", "target"), ("scaleMetric", "metric"), ("maxReplicas", "max-scale")):
        if predictor.get(field):
            found[f"{_SCALING}/{name}"] = str(predictor[field])
    return found
