"""What KServe's definition and webhooks say to InferenceServices and runtimes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    INFERENCE_SERVICE,
    SERVING_RUNTIME,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.shipped_serving_runtimes import ship_serving_runtimes
from objects import Object
from registries import refused
from serving import MODE, container, inference_service, runtime, with_model

DENIED = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '
ONE_OF = (
    "exactly one of [Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, Paddle, "
    "Model, StorageUris, StorageContainerName, WorkerSpec, PodSpec] must be specified in PredictorSpec"
)


def canary(name: str = "v2", percent: int = 10, **predictor: Any) -> Object:
    model = {"modelFormat": {"name": "huggingface"}, "storageUri": "s3://b/v2"}
    return {"trafficPercent": percent, "predictor": {"name": name, "model": model, **predictor}}


def changed(service: Object, **predictor: Any) -> Object:
    service["spec"]["predictor"].update(predictor)
    return service


def with_canaries(*canaries: Object, mode: str = "Standard", **predictor: Any) -> Object:
    service = changed(with_model(mode=mode, storageUri="s3://b/v1"), **predictor)
    service["spec"]["canary"] = list(canaries)
    return service


def uris(*places: tuple[str, str]) -> list[Object]:
    return [{"uri": uri, "mountPath": path} for uri, path in places]


@pytest.mark.parametrize(
    ("service", "text"),
    [
        (
            inference_service("1model"),
            (
                'the InferenceService "1model" is invalid: a InferenceService name must consist of lower case '
                "alphanumeric characters or '-', and must start with alphabetical character. "
                '(e.g. "my-name" or "abc-123", regex used '
                "for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            ),
        ),
        (
            inference_service(annotations={"serving.kserve.io/autoscalerClass": "cron"}),
            "[cron] is not a supported autoscaler class type",
        ),
        (
            inference_service(predictor={"containers": [container(env=[{"name": "PYTHONPATH", "value": "/x"}])]}),
            (
                'the InferenceService "model" is invalid: setting PYTHONPATH in container "kserve-container" is not '
                "allowed for security reasons"
            ),
        ),
        (
            with_model(env=[{"name": "PYTHONPATH", "value": "/x"}]),
            (
                'the InferenceService "model" is invalid: setting PYTHONPATH in container "" is not allowed for '
                "security reasons"
            ),
        ),
        (with_model(), None),
        (
            changed(with_model(), model={"modelFormat": {"name": "huggingface"}, "name": "x"}),
            "the 'name' field is not allowed in standard predictor",
        ),
        (inference_service(predictor={}), ONE_OF),
        (changed(inference_service(), model={"modelFormat": {"name": "huggingface"}}), ONE_OF),
        (changed(inference_service(), minReplicas=-1), "'MinReplicas' cannot be less than 0"),
        (changed(inference_service(), maxReplicas=-1), "'MaxReplicas' cannot be less than 0"),
        (
            changed(inference_service(), minReplicas=3, maxReplicas=2),
            "'MinReplicas' cannot be greater than MaxReplicas",
        ),
        (changed(inference_service(), maxReplicas=2), None),
        (changed(inference_service(), containerConcurrency=-1), "parallelism cannot be less than 0"),
        (changed(inference_service(), logger={"url": "x"}), "invalid logger type"),
        (
            changed(inference_service(), logger={"mode": "all"}),
            "spec.predictor.logger is not supported here: no agent runs beside the model",
        ),
        (
            changed(inference_service(), workerSpec={}),
            "spec.predictor.workerSpec is not supported here: a model runs in one pod",
        ),
        (
            with_model(storage={"path": "x"}),
            "spec.predictor.model.storage is not supported here: give model.storageUri or storageUris",
        ),
        (
            changed(with_model(storageUri="s3://b/a"), storageUris=uris(("s3://b/c", "/mnt/models"))),
            "Setting both StorageURI and StorageURIs is not supported.",
        ),
        (changed(with_model(), storageUris=uris(("s3://b/c", "/"))), "storage path cannot be empty"),
        (
            changed(with_model(), storageUris=uris(("s3://b/c", "/mnt/../etc"))),
            "storage path cannot contain '..' for security reasons: /mnt/../etc",
        ),
        (
            changed(with_model(), storageUris=uris(("s3://b/c", "/one/a"), ("s3://b/d", "/two/b"))),
            (
                "storage paths must have a common parent directory. Current paths: [/one/a /two/b] have no "
                "common parent beyond root"
            ),
        ),
        (
            changed(
                with_model(),
                storageUris=uris(("s3://b/c", "/m/a"), ("s3://b/d", "/m/b"), ("pvc://c", "/p"), ("pvc://d", "/p")),
            ),
            "PVC storage paths must be unique",
        ),
        (changed(with_model(), storageUris=uris(("s3://b/c", "/mnt/models/a"), ("pvc://d", "/data"))), None),
        (
            changed(inference_service(), deploymentStrategy={"type": "Recreate"}),
            "customizing deploymentStrategy is only supported for raw deployment mode",
        ),
        (changed(inference_service(mode="Standard"), deploymentStrategy={"type": "Recreate"}), None),
        (changed(inference_service(), scaleMetric="cpu"), "[cpu] is not a supported metric"),
        (changed(inference_service(), scaleMetric="rps", scaleTarget=0), "the target for rps should be greater than 1"),
        (
            changed(
                inference_service(mode="Standard", annotations={"serving.kserve.io/autoscalerClass": "hpa"}),
                scaleMetric="rps",
            ),
            "[rps] is not a supported metric",
        ),
        (
            changed(
                inference_service(mode="Standard", annotations={"serving.kserve.io/autoscalerClass": "hpa"}),
                scaleTarget=200,
            ),
            "the target utilization percentage should be a [1-100] integer",
        ),
        (
            inference_service(predictor={"containers": [container(env=[{"name": "PROTOCOL", "value": "v3"}])]}),
            "invalid protocol v1, v2. Must be one of [v3]",
        ),
        (
            inference_service(
                predictor={
                    "containers": [
                        container(),
                        container(name="transformer-container", env=[{"name": "STORAGE_URI", "value": "s3://b/a"}]),
                    ]
                }
            ),
            "storage uri should not be specified in transformer container",
        ),
        (
            inference_service()
            | {"spec": {**inference_service()["spec"], "transformer": {"containers": [container()]}}},
            "spec.transformer is not supported here: only predictors are run",
        ),
        (with_canaries(canary()), None),
        (with_canaries(canary(), mode=""), "canary is only supported in Standard deployment mode"),
        (
            with_canaries({**canary(), "predictor": {"containers": [container()]}}),
            "canary[0] predictor.name is required",
        ),
        (with_canaries(canary(), canary()), 'canary predictor.name "v2" is duplicated'),
        (with_canaries(canary(), name="v2"), 'canary predictor.name "v2" conflicts with stable predictor name'),
        (with_canaries(canary("a", 60), canary("b", 50)), "sum of canary trafficPercent values (110) must be <= 100"),
        (
            with_canaries(canary(maxReplicas=2)),
            'canary "v2" must not set maxReplicas (canary uses fixed replicas)',
        ),
        (
            with_canaries(canary(minReplicas=2)),
            'canary "v2" minReplicas (2) must not exceed stable predictor minReplicas (1)',
        ),
        (with_canaries(canary(minReplicas=-1)), "canary \"v2\" predictor: 'MinReplicas' cannot be less than 0"),
        (
            with_canaries(canary(workerSpec={})),
            'canary "v2" must not set workerSpec (multi-node is not yet supported for canary)',
        ),
        (with_canaries({"trafficPercent": 1, "predictor": {"name": "v2"}}), f'canary "v2" predictor: {ONE_OF}'),
    ],
)
def test_the_webhook_tells_the_first_mistake(registry: Registry, service: Object, text: str | None) -> None:
    if text is None:
        registry.create(INFERENCE_SERVICE, service)
    else:
        error = refused(registry.create, INFERENCE_SERVICE, service)
        assert (error.code, error.reason, error.message) == (403, "Forbidden", DENIED + text)


def test_a_canary_needs_a_stable_model(registry: Registry) -> None:
    service = inference_service(mode="Standard", canary=[canary()])
    assert refused(registry.create, INFERENCE_SERVICE, service).message == (
        f"{DENIED}canary requires a stable predictor with a model (multi-model serving is not supported with canary)"
    )


@pytest.mark.parametrize(
    ("spec", "field", "text"),
    [
        ({"predictor": None}, "spec.predictor", "Required value"),
        ({"predictor": {"minReplicas": "2"}}, "spec.predictor.minReplicas", 'must be of type integer: "string"'),
        ({"predictor": {"model": {}}}, "spec.predictor.model.modelFormat", "Required value"),
        ({"predictor": {"name": "V2"}}, "spec.predictor.name", "should match"),
        ({"predictor": {"scaleMetric": "gpu"}}, "spec.predictor.scaleMetric", "Unsupported value"),
        ({"predictor": {"storageUris": []}}, "spec.predictor.storageUris", "should have at least 1 items"),
        (
            {"predictor": {"storageUris": [{"uri": "s3://b", "mountPath": "models"}]}},
            "spec.predictor.storageUris[0].mountPath",
            "should match",
        ),
        (
            {"predictor": {"containers": [container(resources={"limits": {"cpu": "many"}})]}},
            "spec.predictor.containers[0].resources.limits[cpu]",
            "should match",
        ),
        (
            {"predictor": {}, "canary": [{"predictor": {}, "trafficPercent": 101}]},
            "spec.canary[0].trafficPercent",
            "should be less than or equal to 100",
        ),
    ],
)
def test_the_definition_names_the_field(registry: Registry, spec: Object, field: str, text: str) -> None:
    error = refused(registry.create, INFERENCE_SERVICE, {**inference_service(), "spec": spec})
    (cause,) = error.status["details"]["causes"]
    assert (error.code, cause["field"]) == (422, field)
    assert text in cause["message"]


@pytest.mark.parametrize(
    ("framework", "protocol"), [("sklearn", None), ("huggingface", "v2"), ("triton", "v2"), ("pytorch", None)]
)
def test_a_framework_of_its_own_becomes_a_model(registry: Registry, framework: str, protocol: str | None) -> None:
    service = inference_service(predictor={framework: {"storageUri": "s3://b/a"}})
    made = registry.create(INFERENCE_SERVICE, service)
    model = {"modelFormat": {"name": framework}, "storageUri": "s3://b/a"}
    assert made["spec"] == {"predictor": {"model": model | ({"protocolVersion": protocol} if protocol else {})}}
    assert made["metadata"]["annotations"] == {"modelFormat": framework}


def test_legacy_modes_and_the_only_container_get_their_names(registry: Registry) -> None:
    service = inference_service(mode="RawDeployment", predictor={"containers": [container(name="mine")]})
    made = registry.create(INFERENCE_SERVICE, service)
    assert made["metadata"]["annotations"] == {MODE: "Standard"}
    assert made["spec"]["predictor"]["containers"][0]["name"] == "kserve-container"


def test_mount_paths_have_a_default_and_unknown_fields_vanish(registry: Registry) -> None:
    service = changed(with_model(), storageUris=[{"uri": "s3://b/a"}], labelz={"a": "b"})
    predictor = registry.create(INFERENCE_SERVICE, service)["spec"]["predictor"]
    assert predictor["storageUris"] == [{"uri": "s3://b/a", "mountPath": "/mnt/models"}]
    assert "labelz" not in predictor


def _rename(service: Object) -> None:
    service["spec"]["predictor"]["name"] = "v2"


def _other_mode(service: Object) -> None:
    service["metadata"]["annotations"][MODE] = "Knative"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_other_mode, "update rejected: deploymentMode cannot be changed from 'Standard' to 'Knative'"),
        (_rename, "predictor.name change requires a model change (e.g. storageUri)"),
    ],
)
def test_what_an_update_may_not_change(registry: Registry, change: Callable[[Object], None], text: str) -> None:
    made = registry.create(INFERENCE_SERVICE, with_model(mode="Standard", storageUri="s3://b/v1"))
    made = registry.update_status(INFERENCE_SERVICE, {**made, "status": {"deploymentMode": "Standard"}})
    change(made)
    assert refused(registry.update, INFERENCE_SERVICE, made).message == DENIED + text


def test_a_promotion_changes_name_and_model_together(registry: Registry) -> None:
    made = registry.create(INFERENCE_SERVICE, with_canaries(canary(percent=50)))
    (promoted,) = made["spec"].pop("canary")
    made["spec"]["predictor"] |= promoted["predictor"]
    assert registry.update(INFERENCE_SERVICE, made)["spec"]["predictor"]["name"] == "v2"


def test_only_finalizers_of_a_service_that_is_going_change(registry: Registry) -> None:
    service = inference_service()
    service["metadata"]["finalizers"] = ["inferenceservice.finalizers"]
    registry.create(INFERENCE_SERVICE, service)
    registry.delete(INFERENCE_SERVICE, "default", "model")
    going = registry.get(INFERENCE_SERVICE, "default", "model")
    going["metadata"]["finalizers"] = []
    registry.update(INFERENCE_SERVICE, going)
    assert registry.find(INFERENCE_SERVICE, "default", "model") is None


def test_a_dry_run_keeps_nothing(registry: Registry) -> None:
    registry.create(INFERENCE_SERVICE, inference_service(), dry_run=True)
    assert registry.find(INFERENCE_SERVICE, "default", "model") is None


def formats(*stated: tuple[str, int | None]) -> list[Object]:
    found = [{"name": name, "autoSelect": True, "priority": priority} for name, priority in stated]
    return [{key: value for key, value in one.items() if value is not None} for one in found]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"supportedModelFormats": formats(("huggingface", 1), ("huggingface", 2))},
            "different priorities assigned for the model format huggingface under the clusterservingruntime own",
        ),
        (
            {
                "supportedModelFormats": [{**formats(("huggingface", 1))[0], "version": "1"}],
                "protocolVersions": ["v2"],
            },
            (
                "same priority assigned for the model format huggingface in the clusterservingruntimes "
                "kserve-huggingfaceserver and own"
            ),
        ),
        (
            {"containers": [container(env=[{"name": "PYTHONPATH", "value": "/x"}])]},
            (
                'the ClusterServingRuntime "own" is invalid: setting PYTHONPATH in container "kserve-container" is not '
                "allowed for security reasons"
            ),
        ),
    ],
)
def test_the_webhook_of_runtimes(registry: Registry, spec: Object, text: str) -> None:
    ship_serving_runtimes(registry)
    made = runtime("own")
    made["spec"] |= copy.deepcopy(spec)
    error = refused(registry.create, CLUSTER_SERVING_RUNTIME, made)
    webhook = "clusterservingruntime.kserve-webhook-server.validator"
    assert error.message == f'admission webhook "{webhook}" denied the request: {text}'
    made["spec"]["disabled"] = True
    registry.create(CLUSTER_SERVING_RUNTIME, made)


def test_a_runtime_needs_containers(registry: Registry) -> None:
    made = runtime()
    del made["spec"]["containers"]
    error = refused(registry.create, SERVING_RUNTIME, made, "default")
    assert [one["field"] for one in error.status["details"]["causes"]] == ["spec.containers"]


def test_runtimes_are_shipped_once(registry: Registry) -> None:
    ship_serving_runtimes(registry)
    version = registry.resource_version
    ship_serving_runtimes(registry)
    assert registry.resource_version == version
    names = [one["metadata"]["name"] for one in registry.list(CLUSTER_SERVING_RUNTIME)[0]]
    assert names == ["kserve-huggingfaceserver", "kserve-vllmserver"]
