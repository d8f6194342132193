"""InferenceServices over time; the test plays the Deployments, the pods and the gateway."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    POD,
    SERVICE,
    SERVING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.inference_service import InferenceServiceController
from airflow_llmtune.controlplane.controllers.shipped_serving_runtimes import ship_serving_runtimes
from objects import Object
from serving import container, inference_service, runtime, with_model

STANDARD, KNATIVE = "Standard", "Knative"
STOP = "serving.kserve.io/stop"


class World:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self.clock: Any = clock
        self.controller = InferenceServiceController(registry, clock, lambda: "http://gate")
        self.delay: float | None = None
        ship_serving_runtimes(registry)

    async def start(self, service: Object) -> Object:
        self.registry.create(INFERENCE_SERVICE, service)
        return await self.settle()

    async def settle(self) -> Object:
        """A failure is told by an event at each look, so the looks are counted."""
        for _ in range(4):
            self._accept_routes()
            self.delay = await self.controller.reconcile("default", "model")
        return self.registry.get(INFERENCE_SERVICE, "default", "model")

    async def change(self, **predictor: Any) -> Object:
        service = self.registry.get(INFERENCE_SERVICE, "default", "model")
        service["spec"]["predictor"].update(predictor)
        self.registry.update(INFERENCE_SERVICE, service)
        return await self.settle()

    async def annotate(self, **annotations: str) -> Object:
        service = self.registry.get(INFERENCE_SERVICE, "default", "model")
        service["metadata"]["annotations"] = {**service["metadata"].get("annotations", {}), **annotations}
        self.registry.update(INFERENCE_SERVICE, service)
        return await self.settle()

    async def available(self, name: str, *, reason: str = "NewReplicaSetAvailable") -> Object:
        made = self.registry.get(DEPLOYMENT, "default", name)
        made["status"] = {
            "observedGeneration": made["metadata"]["generation"],
            "availableReplicas": 1,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "enough"},
                {"type": "Progressing", "status": "True", "reason": reason, "message": "done"},
            ],
        }
        self.registry.update_status(DEPLOYMENT, made)
        return await self.settle()

    def make_pod(self, deployment: str, **status: Any) -> None:
        template = self.registry.get(DEPLOYMENT, "default", deployment)["spec"]["template"]
        metadata = {**template["metadata"], "generateName": deployment, "namespace": "default"}
        made = self.registry.create(POD, {"metadata": metadata, "spec": template["spec"]})
        self.registry.update_status(POD, {**made, "status": status})

    def names(self, kind: Kind) -> list[str]:
        return [one["metadata"]["name"] for one in self.registry.list(kind, "default")[0]]

    def route(self) -> list[tuple[str, int]]:
        (rule,) = self.registry.get(HTTP_ROUTE, "default", "model")["spec"]["rules"]
        return [(one["name"], one["weight"]) for one in rule["backendRefs"]]

    def events(self) -> list[tuple[str, str]]:
        return [(one["reason"], one["message"]) for one in self.registry.list(EVENT, "default")[0]]

    def _accept_routes(self) -> None:
        for route in self.registry.list(HTTP_ROUTE, "default")[0]:
            if "status" not in route:
                condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "served"}
                parents = [{"parentRef": {"name": "g"}, "conditions": [condition]}]
                self.registry.update_status(HTTP_ROUTE, {**route, "status": {"parents": parents}})


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def told(service: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in service["status"]["conditions"]}


def reasons(service: Object) -> dict[str, str]:
    return {one["type"]: one.get("reason", "") for one in service["status"]["conditions"]}


async def test_standard_mode_makes_what_kserve_makes(world: World) -> None:
    service = await world.start(with_model(mode=STANDARD, storageUri="s3://b/a", args=["--dtype=float32"]))
    made = world.registry.get(DEPLOYMENT, "default", "model-predictor")
    app = {"app": "isvc.model-predictor"}
    labels = {"serving.kserve.io/inferenceservice": "model", "component": "predictor"}
    assert made["spec"]["selector"] == {"matchLabels": app}
    assert made["spec"]["template"]["metadata"]["labels"] == {**labels, **app}
    assert made["spec"]["template"]["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": STANDARD,
        "internal.serving.kserve.io/storage-initializer-sourceuri": "s3://b/a",
    }
    assert made["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert (made["spec"]["replicas"], made["spec"]["progressDeadlineSeconds"]) == (1, 600)
    (main,) = made["spec"]["template"]["spec"]["containers"]
    assert main["command"] == ["python", "-m", "llmtune_trainer.serve"]
    assert main["args"][0] == "--model_name=model"
    assert main["args"][-1] == "--dtype=float32"
    front = world.registry.get(SERVICE, "default", "model-predictor")
    assert front["spec"]["selector"] == app
    port = {"name": "model-predictor", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    assert front["spec"]["ports"] == [port]
    assert service["metadata"]["finalizers"] == ["inferenceservice.finalizers"]
    assert service["status"]["clusterServingRuntimeName"] == "kserve-huggingfaceserver"
    assert service["status"]["deploymentMode"] == STANDARD
    assert service["status"]["modelStatus"]["transitionStatus"] == "InProgress"
    assert told(service) == {"IngressReady": "False", "PredictorReady": "False", "Ready": "False", "Stopped": "False"}
    assert reasons(service)["IngressReady"] == "InferenceService Deployment NotReady"
    assert world.names(HTTP_ROUTE) == []


async def test_standard_mode_becomes_ready_with_its_deployment(world: World) -> None:
    await world.start(inference_service(mode=STANDARD))
    service = await world.available("model-predictor")
    status = service["status"]
    assert told(service) == {"IngressReady": "True", "PredictorReady": "True", "Ready": "True", "Stopped": "False"}
    assert status["url"] == "http://gate/serving/default/model"
    assert status["address"] == {"url": "http://model-predictor.default.svc.cluster.local"}
    assert status["components"] == {"predictor": {"url": status["url"]}}
    assert status["observedGeneration"] == 1
    assert world.route() == [("model-predictor", 100)]
    assert world.events() == [("InferenceServiceReady", "InferenceService [model] is Ready")]
    version = world.registry.resource_version
    await world.settle()
    assert world.registry.resource_version == version


@pytest.mark.parametrize("mode", [STANDARD, KNATIVE])
async def test_a_later_look_at_the_same_writes_nothing(world: World, mode: str) -> None:
    await world.start(inference_service(mode=mode))
    version = world.registry.resource_version
    world.clock.advance(60)
    await world.settle()
    assert world.registry.resource_version == version


async def test_the_observed_generation_is_the_deployments(world: World) -> None:
    await world.start(inference_service(mode=STANDARD))
    await world.available("model-predictor")
    await world.change(timeout=5)
    service = await world.change(containers=[container("two")])
    assert (service["metadata"]["generation"], service["status"]["observedGeneration"]) == (3, 1)
    service = await world.available("model-predictor", reason="ReplicaSetUpdated")
    assert service["status"]["observedGeneration"] == 2
    assert told(service)["Ready"] == "True"


async def test_a_service_that_is_not_ready_any_more_says_why(world: World) -> None:
    await world.start(inference_service(mode=STANDARD))
    await world.available("model-predictor")
    made = world.registry.get(DEPLOYMENT, "default", "model-predictor")
    made["status"]["conditions"][0] |= {"status": "False", "reason": "MinimumReplicasUnavailable"}
    world.registry.update_status(DEPLOYMENT, made)
    service = await world.settle()
    assert told(service) == {"IngressReady": "True", "PredictorReady": "False", "Ready": "False", "Stopped": "False"}
    text = "InferenceService [model] is no longer Ready because of: PredictorReady, Ready, Stopped"
    assert ("InferenceServiceNotReady", text) in world.events()
    assert world.route() == [("model-predictor", 100)]


@pytest.mark.parametrize("mode", [STANDARD, KNATIVE])
async def test_no_runtime(world: World, mode: str) -> None:
    service = with_model(mode=mode)
    service["spec"]["predictor"]["model"]["modelFormat"]["name"] = "cheap"
    service = await world.start(service)
    assert service["status"]["modelStatus"] == {
        "transitionStatus": "InvalidSpec",
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "lastFailureInfo": {
            "reason": "NoSupportingRuntime",
            "message": "No runtime found to support specified framework/version",
        },
    }
    assert told(service) == {"IngressReady": "Unknown", "PredictorReady": "Unknown", "Ready": "Unknown"}
    assert world.events()[0][0] == "InternalError"
    assert world.delay is not None
    world.registry.create(SERVING_RUNTIME, runtime(), "default")
    service = await world.settle()
    assert service["status"]["servingRuntimeName"] == "cheap"
    assert world.delay is None


async def test_a_storage_that_nobody_knows(world: World) -> None:
    await world.start(with_model(mode=STANDARD, storageUri="ftp://b/a"))
    ((reason, text),) = world.events()
    assert reason == "InternalError"
    assert text.startswith("StorageURI not supported: storageUri, must be one of: [gs://, s3://")


@pytest.mark.parametrize("mode", [STANDARD, KNATIVE])
async def test_a_deployment_that_is_refused(world: World, mode: str) -> None:
    broken = container(resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}})
    service = await world.start(inference_service(mode=mode, predictor={"containers": [broken]}))
    assert reasons(service)["PredictorReady"] == "ReconcileFailed"
    assert told(service)["Ready"] == "False"


async def test_replicas(world: World) -> None:
    service = inference_service(mode=STANDARD)
    service["spec"]["predictor"] |= {"minReplicas": 3, "deploymentStrategy": {"type": "Recreate"}}
    await world.start(service)
    made = world.registry.get(DEPLOYMENT, "default", "model-predictor")["spec"]
    assert (made["replicas"], made["strategy"]["type"]) == (3, "Recreate")


async def test_a_runtime_that_changes_rolls_its_services(world: World) -> None:
    world.registry.create(CLUSTER_SERVING_RUNTIME, runtime())
    service = with_model(mode=STANDARD)
    service["spec"]["predictor"]["model"]["modelFormat"]["name"] = "cheap"
    await world.start(service)
    found = world.registry.get(CLUSTER_SERVING_RUNTIME, None, "cheap")
    found["spec"]["containers"][0]["image"] = "y"
    found = world.registry.update(CLUSTER_SERVING_RUNTIME, found)
    assert world.controller.keys_for(CLUSTER_SERVING_RUNTIME, found) == [("default", "model")]
    await world.settle()
    made = world.registry.get(DEPLOYMENT, "default", "model-predictor")
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "y"


def canary(name: str, percent: int, **model: Any) -> Object:
    return {"trafficPercent": percent, "predictor": {"name": name, "model": model}}


async def test_a_canary_gets_its_share_when_it_is_ready_and_is_promoted(world: World) -> None:
    asked = {"modelFormat": {"name": "huggingface"}, "storageUri": "s3://b/v2"}
    service = with_model(mode=STANDARD, storageUri="s3://b/v1", args=["--a"])
    await world.start(service)
    await world.available("model-predictor")
    service = world.registry.get(INFERENCE_SERVICE, "default", "model")
    service["spec"]["canary"] = [canary("v2", 20, **asked)]
    world.registry.update(INFERENCE_SERVICE, service)
    service = await world.settle()
    assert world.names(DEPLOYMENT) == ["model-predictor", "model-v2-predictor"]
    assert world.route() == [("model-predictor", 100)]
    told_of = {"name": "v2", "trafficPercent": 20, "modelStatus": {"transitionStatus": ""}}
    assert service["status"]["canaryStatuses"] == [{**told_of, "ready": False}]
    assert reasons(service)["CanaryPredictorReady"] == "CanariesNotReady"
    template = world.registry.get(DEPLOYMENT, "default", "model-v2-predictor")["spec"]["template"]
    assert template["spec"]["containers"][0]["args"][-1] == "--a"
    assert (
        template["metadata"]["annotations"]["internal.serving.kserve.io/storage-initializer-sourceuri"] == "s3://b/v2"
    )

    service = await world.available("model-v2-predictor")
    assert world.route() == [("model-predictor", 80), ("model-v2-predictor", 20)]
    assert service["status"]["canaryStatuses"] == [{**told_of, "ready": True}]

    del service["spec"]["canary"]
    service["spec"]["predictor"] |= {"name": "v2", "model": {**service["spec"]["predictor"]["model"], **asked}}
    world.registry.update(INFERENCE_SERVICE, service)
    service = await world.settle()
    assert world.names(DEPLOYMENT) == ["model-v2-predictor"]
    assert world.names(SERVICE) == ["model-v2-predictor"]
    assert world.route() == [("model-v2-predictor", 100)]
    assert told(service)["Ready"] == "True"
    assert "canaryStatuses" not in service["status"]
    assert "CanaryPredictorReady" not in told(service)


async def test_a_canary_that_is_taken_back_leaves_nothing(world: World) -> None:
    service = with_model(mode=STANDARD, storageUri="s3://b/v1")
    service["spec"]["canary"] = [canary("v2", 0, modelFormat={"name": "huggingface"}, storageUri="s3://b/v2")]
    await world.start(service)
    # No share, no replicas: such a canary never becomes ready unless it asks for one.
    assert world.registry.get(DEPLOYMENT, "default", "model-v2-predictor")["spec"]["replicas"] == 0
    service = world.registry.get(INFERENCE_SERVICE, "default", "model")
    del service["spec"]["canary"]
    world.registry.update(INFERENCE_SERVICE, service)
    await world.settle()
    assert world.names(DEPLOYMENT) == ["model-predictor"]


async def test_models_of_a_canary_in_storage_uris_are_not_fetched(world: World) -> None:
    uris = [{"uri": "s3://b/base", "mountPath": "/mnt/models/base"}]
    service = with_model(mode=STANDARD)
    service["spec"]["predictor"]["storageUris"] = uris
    service["spec"]["canary"] = [canary("v2", 50, modelFormat={"name": "huggingface"}, args=["--new"])]
    await world.start(service)
    pods = {
        name: world.registry.get(DEPLOYMENT, "default", name)["spec"]["template"]["spec"]
        for name in world.names(DEPLOYMENT)
    }
    assert pods["model-predictor"]["initContainers"][0]["args"] == ["s3://b/base", "/mnt/models/base"]
    assert "initContainers" not in pods["model-v2-predictor"]


@pytest.mark.parametrize("mode", [STANDARD, KNATIVE])
async def test_a_service_is_stopped_and_goes_on(world: World, mode: str) -> None:
    await world.start(inference_service(mode=mode))
    name = "model-predictor" if mode == STANDARD else "model-predictor-00001-deployment"
    await world.available(name)
    service = await world.annotate(**{STOP: "true"})
    assert [world.names(kind) for kind in (DEPLOYMENT, SERVICE, HTTP_ROUTE)] == [[], [], []]
    assert told(service) == {"IngressReady": "False", "PredictorReady": "False", "Ready": "False", "Stopped": "True"}
    assert reasons(service)["Ready"] == "Stopped"
    assert "url" not in service["status"]
    assert service["status"]["deploymentMode"] == mode
    await world.annotate(**{STOP: "false"})
    service = await world.available(name)
    assert told(service)["Ready"] == "True"
    assert told(service)["Stopped"] == "False"


async def test_a_ready_service_may_be_left_as_it_is(world: World) -> None:
    await world.start(inference_service(mode=STANDARD, annotations={"serving.kserve.io/disable-auto-update": "true"}))
    await world.available("model-predictor")
    await world.change(minReplicas=2)
    assert world.registry.get(DEPLOYMENT, "default", "model-predictor")["spec"]["replicas"] == 1


async def test_a_deleted_service_loses_its_finalizer(world: World) -> None:
    await world.start(inference_service())
    world.registry.delete(INFERENCE_SERVICE, "default", "model")
    await world.controller.reconcile("default", "model")
    assert world.registry.find(INFERENCE_SERVICE, "default", "model") is None


def test_a_pod_concerns_the_service_that_its_label_names(world: World) -> None:
    labels = {"serving.kserve.io/inferenceservice": "model"}
    pod = {"metadata": {"name": "p", "namespace": "default", "labels": labels}}
    assert world.controller.keys_for(POD, pod) == [("default", "model")]
    assert world.controller.keys_for(POD, {"metadata": {"name": "p", "namespace": "default"}}) == []


# Knative mode, the default


async def test_each_change_of_the_template_is_a_revision(world: World) -> None:
    service = await world.start(inference_service())
    assert service["status"]["deploymentMode"] == KNATIVE
    assert world.names(SERVICE) == ["model-predictor-00001"]
    (name,) = world.names(DEPLOYMENT)
    made = world.registry.get(DEPLOYMENT, "default", name)
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert (labels["serving.knative.dev/revision"], labels["app"]) == (
        "model-predictor-00001",
        "isvc.model-predictor-00001",
    )
    assert world.names(HTTP_ROUTE) == []
    service = await world.available(name)
    assert world.route() == [("model-predictor-00001", 100)]
    assert set(told(service).values()) == {"True", "False"}
    assert told(service)["Ready"] == "True"
    assert service["status"]["observedGeneration"] == 1

    service = await world.change(containers=[container("two")])
    component = service["status"]["components"]["predictor"]
    assert (component["latestCreatedRevision"], component["latestReadyRevision"]) == (
        "model-predictor-00002",
        "model-predictor-00001",
    )
    assert told(service)["Ready"] == "Unknown"
    assert reasons(service)["LatestDeploymentReady"] == "PredictorConfigurationReady not ready"
    assert service["status"]["observedGeneration"] == 2
    service = await world.available("model-predictor-00002-deployment")
    assert world.route() == [("model-predictor-00002", 100)]
    assert world.registry.get(DEPLOYMENT, "default", name)["spec"]["replicas"] == 0
    assert service["status"]["components"]["predictor"]["previousRolledoutRevision"] == "model-predictor-00001"


async def test_a_share_of_requests_is_no_new_revision(world: World) -> None:
    await world.start(inference_service())
    await world.available("model-predictor-00001-deployment")
    await world.change(containers=[container("two")], canaryTrafficPercent=10)
    service = await world.available("model-predictor-00002-deployment")
    assert world.route() == [("model-predictor-00002", 10), ("model-predictor-00001", 90)]
    assert service["status"]["components"]["predictor"]["latestRolledoutRevision"] == "model-predictor-00001"
    service = await world.change(canaryTrafficPercent=0)
    assert world.route() == [("model-predictor-00002", 0), ("model-predictor-00001", 100)]
    assert len(world.names(DEPLOYMENT)) == 2
    assert service["status"]["observedGeneration"] == 3
    service = await world.change(canaryTrafficPercent=100)
    assert world.route() == [("model-predictor-00002", 100)]
    replicas = [world.registry.get(DEPLOYMENT, "default", one)["spec"]["replicas"] for one in world.names(DEPLOYMENT)]
    assert replicas == [0, 1]


async def test_a_broken_revision_is_told_and_gets_no_requests(world: World) -> None:
    await world.start(inference_service())
    await world.available("model-predictor-00001-deployment")
    await world.change(containers=[container("two")])
    crashed = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no model"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    state = {"name": "kserve-container", "image": "x", "state": waiting, "lastState": crashed}
    world.make_pod("model-predictor-00002-deployment", phase="Running", containerStatuses=[state])
    service = await world.settle()
    assert told(service)["Ready"] == "False"
    assert reasons(service)["PredictorReady"] == "RevisionFailed"
    assert service["status"]["modelStatus"]["lastFailureInfo"] == {
        "reason": "ModelLoadFailed",
        "message": "no model",
        "exitCode": 3,
    }
    assert service["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    assert world.route() == [("model-predictor-00001", 100)]
    assert service["status"]["url"] == "http://gate/serving/default/model"
