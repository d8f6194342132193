"""Which runtime serves a model, and the pod that comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.controllers.predictor_pod import model_port, pod_spec
from airflow_llmtune.controlplane.controllers.serving_runtimes import (
    InvalidSpecError,
    Runtime,
    protocol_rank,
    runtime_of,
    select,
)
from objects import Object

METADATA = {"name": "chat", "namespace": "nlp", "labels": {"tier": "gold"}}
NAME = {"name": "INFERENCE_SERVICE_NAME", "value": "chat"}


def stored(name: str, *formats: Object, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Object:
    metadata = {"name": name, "creationTimestamp": created}
    containers = [{"name": "kserve-container", "image": "x"}]
    return {"metadata": metadata, "spec": {"supportedModelFormats": list(formats), "containers": containers, **spec}}


def offer(name: str = "llm", **fields: Any) -> Object:
    return {"name": name, "autoSelect": True, **fields}


def model(name: str = "llm", version: str | None = None, **fields: Any) -> Object:
    return {"modelFormat": {"name": name, **({"version": version} if version else {})}, **fields}


@pytest.mark.parametrize(
    ("asked", "own", "everyones", "chosen"),
    [
        (model(), [stored("a", offer())], [], "a"),
        (model(), [stored("a", offer())], [stored("b", offer(priority=9))], "a"),
        (model(), [stored("a", {"name": "llm"})], [stored("b", offer())], "b"),
        (model(), [], [stored("a", offer(priority=1)), stored("b", offer(priority=2))], "b"),
        (model(), [], [stored("a", offer()), stored("b", offer(priority=1))], "b"),
        (model(), [], [stored("b", offer()), stored("a", offer())], "a"),
        (model(), [], [stored("a", offer()), stored("b", offer(), created="2026-02-01T00:00:00Z")], "b"),
        (model(), [], [stored("a", offer(), protocolVersions=["v2"]), stored("b", offer())], "b"),
        (model(protocolVersion="v2"), [], [stored("a", offer(), protocolVersions=["v2"])], "a"),
        (model(version="2"), [], [stored("a", offer(version="1")), stored("b", offer(version="2"))], "b"),
        (model(), [], [stored("a", offer(version="1"))], "a"),
        (model(), [], [stored("a", offer(), disabled=True), stored("b", offer())], "b"),
        (model(), [], [stored("a", offer(), multiModel=True), stored("b", offer())], "b"),
        (model(), [], [stored("a", offer(), workerSpec={}), stored("b", offer())], "b"),
        (model(runtime="b"), [], [stored("a", offer()), stored("b", {"name": "llm"})], "b"),
    ],
)
def test_the_runtime_of_a_model(asked: Object, own: list[Object], everyones: list[Object], chosen: str) -> None:
    assert select(asked, own, everyones).name == chosen


@pytest.mark.parametrize(
    ("asked", "spec", "reason", "message", "text"),
    [
        (
            model("other"),
            {},
            "NoSupportingRuntime",
            "No runtime found to support specified framework/version",
            "no runtime found to support predictor with model type: {other <nil>}",
        ),
        (
            model(runtime="none"),
            {},
            "RuntimeNotRecognized",
            "Waiting for runtime to become available",
            "No ServingRuntimes or ClusterServingRuntimes with the name: none",
        ),
        (
            model(runtime="a"),
            {"disabled": True},
            "RuntimeDisabled",
            "Specified runtime is disabled",
            "specified runtime a is disabled",
        ),
        (
            model(runtime="a", protocolVersion="grpc-v2"),
            {"protocolVersions": ["v1"]},
            "NoSupportingRuntime",
            "Specified runtime does not support specified protocol version",
            "specified runtime a does not support specified protocol version",
        ),
        (
            model("other", runtime="a"),
            {},
            "NoSupportingRuntime",
            "Specified runtime does not support specified framework/version",
            "specified runtime a does not support specified framework/version",
        ),
    ],
)
def test_no_runtime_serves_it(asked: Object, spec: Object, reason: str, message: str, text: str) -> None:
    with pytest.raises(InvalidSpecError) as raised:
        select(asked, [stored("a", offer(), **spec)], [])
    assert (raised.value.reason, raised.value.message, str(raised.value)) == (reason, message, text)


def test_protocols_have_an_order() -> None:
    assert [protocol_rank(one) for one in ([], ["v1"], ["grpc-v2", "v2"], ["odd"])] == [-1, 0, 1, -1]


def of_container(**fields: Any) -> Runtime:
    container = {"name": "kserve-container", "image": "server:1", **fields}
    return Runtime("own", {"containers": [container]}, {}, is_cluster_wide=True)


def pod(runtime: Runtime | None, predictor: Object) -> Object:
    return pod_spec({"metadata": METADATA}, predictor, runtime)


def main(runtime: Runtime, **fields: Any) -> Object:
    return pod(runtime, {"model": model(**fields)})["containers"][0]


def test_the_models_container_is_merged_into_the_runtimes() -> None:
    runtime = of_container(
        command=["serve"],
        args=["--name={{.Name}}", "--where={{ .Namespace }}"],
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "{{.Labels.tier}}"}],
        resources={"limits": {"cpu": "1", "memory": "2Gi"}},
    )
    made = main(
        runtime,
        storageUri="s3://b/a",
        args=["--lora"],
        env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        resources={"limits": {"cpu": "2"}},
        image="own:2",
    )
    env = {one.pop("name"): one for one in made.pop("env")}
    assert made.pop("readinessProbe")["tcpSocket"] == {"port": 8080}
    assert made == {
        "name": "kserve-container",
        "image": "own:2",
        "command": ["serve"],
        "args": ["--name=chat", "--where=nlp", "--lora"],
        "resources": {"limits": {"cpu": "2", "memory": "2Gi"}},
    }
    assert env == {
        "A": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        "B": {"value": "gold"},
        "INFERENCE_SERVICE_NAME": {"value": "chat"},
    }


@pytest.mark.parametrize("text", ["{{.Name", "{{.Spec}}", "{{ Name }}"])
def test_unknown_placeholders(text: str) -> None:
    runtime = of_container(args=[text])
    if text == "{{.Name":
        assert main(runtime)["args"] == [text]
        return
    with pytest.raises(
        InvalidSpecError, match="failed to replace placeholders in serving runtime own Container kserve"
    ):
        main(runtime)


def test_a_label_that_is_not_there_has_no_value() -> None:
    assert main(of_container(args=["{{.Labels.none}}"]))["args"] == ["<no value>"]


GPU = {"limits": {"nvidia.com/gpu": "1"}}


@pytest.mark.parametrize(
    ("server", "image", "fields", "expected"),
    [
        ("", "a/b:1", {"runtimeVersion": "2"}, "a/b:2"),
        ("", "a/b", {"runtimeVersion": "2"}, "a/b:2"),
        ("", "a/b@sha256:12", {"runtimeVersion": "2"}, "a/b@sha256:12"),
        ("", "a/b:1", {"resources": GPU}, "a/b:1"),
        ("huggingfaceserver", "a/b:1", {"resources": GPU}, "a/b:1-gpu"),
        ("huggingfaceserver", "a/b:1", {}, "a/b:1"),
        ("huggingfaceserver", "a/b", {"resources": GPU}, "a/b"),
        ("vllmserver", "a/b:1", {"resources": GPU}, "a/b:1"),
        ("vllmserver", "a/b:1", {}, "a/b-cpu:1"),
        ("vllmserver", "a/b-cpu:1", {}, "a/b-cpu:1"),
    ],
)
def test_the_image_follows_version_and_gpu(server: str, image: str, fields: Object, expected: str) -> None:
    made = of_container(image=image)
    annotations = {"serving.kserve.io/server-type": server} if server else {}
    assert main(Runtime("own", made.spec, annotations, is_cluster_wide=False), **fields)["image"] == expected


def test_kserves_own_runtimes_are_known_by_their_names() -> None:
    assert runtime_of(stored("kserve-vllmserver")).server_type == "vllmserver"
    assert runtime_of(stored("mine")).server_type == ""


def test_other_containers_and_the_pods_fields_come_along() -> None:
    spec = of_container().spec
    spec["containers"] += [{"name": "beside", "image": "y"}, {"name": "transformer-container", "args": ["{{.Name}}"]}]
    runtime = Runtime("own", {**spec, "volumes": [{"name": "shm", "emptyDir": {}}]}, {}, is_cluster_wide=False)
    predictor = {
        "model": model(),
        "containers": [{"name": "transformer-container", "args": ["-v"]}, {"name": "log", "image": "z"}],
        "volumes": [{"name": "own", "emptyDir": {}}],
        "serviceAccountName": "reader",
        "minReplicas": 3,
    }
    made = pod(runtime, predictor)
    assert [one["name"] for one in made["containers"]] == ["kserve-container", "transformer-container", "beside", "log"]
    assert made["containers"][1]["args"] == ["chat", "-v"]
    assert sorted(one["name"] for one in made["volumes"]) == ["own", "shm"]
    assert made.keys() == {"containers", "volumes", "serviceAccountName"}
    assert all(NAME in one["env"] for one in made["containers"])


def test_a_runtime_without_the_container_serves_nothing() -> None:
    runtime = Runtime("own", {"containers": [{"name": "other"}]}, {}, is_cluster_wide=False)
    with pytest.raises(InvalidSpecError, match="failed to find kserve-container in ServingRuntime containers"):
        pod(runtime, {"model": model()})


def test_a_container_of_its_own_is_probed_at_its_port() -> None:
    ports = [{"containerPort": 9000, "name": "http1"}]
    made = pod(None, {"containers": [{"name": "kserve-container", "image": "x", "ports": ports}]})
    assert made["containers"][0]["readinessProbe"]["tcpSocket"] == {"port": 9000}
    assert model_port(made) == {"containerPort": 9000, "name": "http1"}
    probed = {"containers": [{"name": "kserve-container", "image": "x", "readinessProbe": {"exec": {}}}]}
    assert pod(None, probed)["containers"][0]["readinessProbe"] == {"exec": {}}
