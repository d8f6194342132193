"""LLMInferenceServices: what is refused, what is made of them, what they tell."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    DEPLOYMENT,
    EVENT,
    HTTP_ROUTE,
    LLM_INFERENCE_SERVICE,
    SERVICE,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.llm_inference_service import LLMInferenceServiceController
from airflow_llmtune.controlplane.controllers.llm_inference_service_parts import child_name
from objects import Object
from registries import refused

DENIED = 'admission webhook "llminferenceservice.kserve-webhook-server.v1alpha2.validator" denied the request: '
ROUTER = {"gateway": {}, "route": {}}


def llm(*adapters: Object, **spec: Any) -> Object:
    lora = {"lora": {"adapters": list(adapters)}} if adapters else {}
    model = {"uri": "hf://org/base", **lora, **spec.pop("model", {})}
    return {"metadata": {"name": "chat", "namespace": "default"}, "spec": {"model": model, **spec}}


def adapter(name: str = "tuned", uri: str = "s3://b/tuned") -> Object:
    return {"name": name, "uri": uri}


@pytest.mark.parametrize(
    ("service", "field", "text"),
    [
        (llm({"uri": "s3://b/a"}), "spec.model.lora.adapters[0].name", "Required value: adapter name is required"),
        (
            llm(adapter("..")),
            "spec.model.lora.adapters[0].name",
            'Invalid value: "..": adapter name must not include "." or ".." (path traversal risk)',
        ),
        (
            llm(adapter(), adapter()),
            "spec.model.lora.adapters[1].name",
            'Invalid value: "tuned": duplicate name (same as adapters[0])',
        ),
        (
            llm(adapter("chat")),
            "spec.model.lora.adapters[0].name",
            'Invalid value: "chat": adapter name must differ from base model name "chat"',
        ),
    ],
)
def test_adapters_have_names_of_their_own(registry: Registry, service: Object, field: str, text: str) -> None:
    error = refused(registry.create, LLM_INFERENCE_SERVICE, service)
    kind = 'LLMInferenceService.serving.kserve.io "chat" is invalid'
    assert (error.code, error.message) == (422, f"{DENIED}{kind}: {field}: {text}")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"model": {"uri": None}}, "spec.model.uri"),
        ({"model": {"lora": {"maxRank": 0}}}, "spec.model.lora.maxRank"),
        ({"replicas": "2"}, "spec.replicas"),
        ({"router": {"route": {"weight": -1}}}, "spec.router.route.weight"),
    ],
)
def test_the_definition_names_the_field(registry: Registry, spec: Object, field: str) -> None:
    error = refused(registry.create, LLM_INFERENCE_SERVICE, llm(**spec))
    assert [one["field"] for one in error.status["details"]["causes"]] == [field]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"prefill": {"replicas": 1}}, "spec.prefill"),
        ({"baseRefs": [{"name": "x"}]}, "spec.baseRefs"),
        ({"parallelism": {"tensor": 2}}, "spec.parallelism"),
        ({"router": {"scheduler": {}}}, "spec.router.scheduler"),
        ({"router": {"route": {"group": "a", "weight": 1}}}, "spec.router.route.group, spec.router.route.weight"),
        ({"router": {"route": {"http": {"spec": {"rules": []}}}}}, "spec.router.route.http.spec"),
        ({"model": {"confidential": {"enabled": True}}}, "spec.model.confidential"),
    ],
)
def test_what_cannot_be_run_is_refused(registry: Registry, spec: Object, field: str) -> None:
    error = refused(registry.create, LLM_INFERENCE_SERVICE, llm(**spec))
    text = f"not supported here: {field}; a model runs in replicas of one pod behind one route"
    assert (error.code, error.message) == (403, DENIED + text)


class World:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self.controller = LLMInferenceServiceController(registry, clock, lambda: "http://gate")

    async def start(self, service: Object) -> Object:
        self.registry.create(LLM_INFERENCE_SERVICE, service)
        return await self.settle()

    async def settle(self) -> Object:
        """A failure is told by an event at each look, so the looks are counted."""
        for _ in range(4):
            for route in self.registry.list(HTTP_ROUTE, "default")[0]:
                if "status" not in route:
                    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "served"}
                    parents = [{"parentRef": {"name": "g"}, "conditions": [condition]}]
                    self.registry.update_status(HTTP_ROUTE, {**route, "status": {"parents": parents}})
            await self.controller.reconcile("default", "chat")
        return self.registry.get(LLM_INFERENCE_SERVICE, "default", "chat")

    async def available(self, value: str = "True") -> Object:
        made = self.deployment()
        conditions = [{"type": "Available", "status": value, "reason": "Why", "message": "because"}]
        made["status"] = {"availableReplicas": 1, "conditions": conditions}
        self.registry.update_status(DEPLOYMENT, made)
        return await self.settle()

    def deployment(self) -> Object:
        return self.registry.get(DEPLOYMENT, "default", "chat-kserve")

    def pod(self) -> Object:
        spec: Object = self.deployment()["spec"]["template"]["spec"]
        return spec

    def names(self, kind: Kind) -> list[str]:
        return [one["metadata"]["name"] for one in self.registry.list(kind, "default")[0]]

    def events(self) -> list[tuple[str, str]]:
        return [(one["reason"], one["message"]) for one in self.registry.list(EVENT, "default")[0]]


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def told(service: Object) -> dict[str, str]:
    return {one["type"]: one["status"] for one in service["status"]["conditions"]}


async def test_the_base_model_and_its_adapters_are_served(world: World) -> None:
    await world.start(llm(adapter(), adapter("also/it", "pvc://data/it"), replicas=2, router=ROUTER))
    assert world.deployment()["spec"]["replicas"] == 2
    (main,), (initializer,) = world.pod()["containers"], world.pod()["initContainers"]
    assert main["command"] == ["python", "-m", "llmtune_trainer.serve"]
    assert main["args"] == [
        "--model=/mnt/models",
        "--host=$(POD_IP)",
        "--port=8000",
        "--served-model-name",
        "chat",
        "publishers/default/models/chat",
        "--enable-lora",
        "--lora-modules",
        '{"name":"also/it","path":"/mnt/lora/also-it"}',
        '{"name":"publishers/default/models/also/it","path":"/mnt/lora/also-it"}',
        '{"name":"tuned","path":"/mnt/lora/tuned"}',
        '{"name":"publishers/default/models/tuned","path":"/mnt/lora/tuned"}',
    ]
    assert initializer["args"] == ["hf://org/base", "/mnt/models", "s3://b/tuned", "/mnt/lora/tuned"]
    places = {one["name"]: one["mountPath"] for one in main["volumeMounts"]}
    assert places == {"kserve-provision-location": "/mnt", "lora-pvc-also-it": "/mnt/lora/also-it"}


async def test_limits_are_only_passed_on_and_the_authors_words_come_last(world: World) -> None:
    service = llm(adapter(), model={"lora": {"adapters": [adapter()], "maxRank": 64, "maxAdapters": 2}})
    env = [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--dtype float32"}]
    service["spec"]["template"] = {"containers": [{"name": "main", "args": ["--max-model-len=64"], "env": env}]}
    await world.start(service)
    (main,) = world.pod()["containers"]
    assert main["args"][6:10] == ["--enable-lora", "--max-lora-rank=64", "--max-loras=2", "--lora-modules"]
    assert main["args"][-3:] == ["--dtype", "float32", "--max-model-len=64"]
    assert [one["name"] for one in main["env"]] == ["POD_IP", "VLLM_ADDITIONAL_ARGS"]


async def test_an_author_who_names_modules_gets_no_others(world: World) -> None:
    service = llm(adapter())
    service["spec"]["template"] = {"containers": [{"name": "main", "args": ["--lora-modules", "a=/b"]}]}
    await world.start(service)
    assert world.pod()["containers"][0]["args"][-2:] == ["--lora-modules", "a=/b"]
    assert "--enable-lora" not in world.pod()["containers"][0]["args"]


async def test_the_initializer_may_get_credentials_or_be_left_out(world: World) -> None:
    service = llm()
    env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}}]
    service["spec"]["template"] = {"initContainers": [{"name": "storage-initializer", "env": env}]}
    await world.start(service)
    (initializer,) = world.pod()["initContainers"]
    assert "HF_TOKEN" in {one["name"] for one in initializer["env"]}
    assert initializer["args"] == ["hf://org/base", "/mnt/models"]
    service = world.registry.get(LLM_INFERENCE_SERVICE, "default", "chat")
    service["spec"] |= {"storageInitializer": {"enabled": False}, "template": {}}
    world.registry.update(LLM_INFERENCE_SERVICE, service)
    await world.settle()
    assert "initContainers" not in world.pod()


async def test_it_becomes_ready_with_its_deployment_and_its_route(world: World) -> None:
    service = await world.start(llm(router=ROUTER))
    assert told(service)["Ready"] == "False"
    assert told(service)["MainWorkloadReady"] == "False"
    service = await world.available()
    assert set(told(service).values()) == {"True"}
    assert sorted(told(service)) == [
        "GatewaysReady",
        "HTTPRoutesReady",
        "MainWorkloadReady",
        "PresetsCombined",
        "Ready",
        "RouterReady",
        "WorkloadsReady",
    ]
    status = service["status"]
    assert status["url"] == "http://gate/default/chat"
    assert status["addresses"] == [{"url": "http://gate/default/chat"}]
    assert status["workloads"]["primary"]["readyReplicas"] == 1
    assert status["observedGeneration"] == service["metadata"]["generation"]
    assert world.names(SERVICE) == ["chat-kserve-workload-svc"]
    (rule,) = world.registry.get(HTTP_ROUTE, "default", "chat-kserve-route")["spec"]["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/default/chat"}}]
    assert world.events() == [("LLMInferenceServiceReady", "LLMInferenceService [chat] is Ready")]
    service = await world.available("False")
    text = "LLMInferenceService [chat] is no longer Ready because of: MainWorkloadReady, WorkloadsReady"
    assert ("LLMInferenceServiceNotReady", text) in world.events()


async def test_without_a_route_it_has_the_address_of_its_service_only(world: World) -> None:
    await world.start(llm())
    service = await world.available()
    assert told(service)["Ready"] == "True"
    assert "url" not in service["status"]
    host = "chat-kserve-workload-svc.default.svc.cluster.local"
    assert service["status"]["addresses"] == [{"url": f"http://{host}"}]
    assert world.names(HTTP_ROUTE) == []


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("tuned", 'LoRA adapter "tuned": invalid URI "tuned"'),
        (
            "oci://r/a",
            'LoRA adapter "tuned": oci:// is not supported for LoRA adapters; use hf://, s3://, or pvc:// instead',
        ),
        (
            "gs://b/a",
            'LoRA adapter "tuned": unsupported URI scheme "gs://"; supported schemes are hf://, s3://, pvc://',
        ),
    ],
)
async def test_adapters_that_cannot_be_had(world: World, uri: str, text: str) -> None:
    service = await world.start(llm(adapter(uri=uri)))
    told_of = next(one for one in service["status"]["conditions"] if one["type"] == "PresetsCombined")
    assert (told_of["status"], told_of["reason"]) == ("False", "CombineBaseError")
    assert told_of["message"] == f"failed to enumerate LoRA adapters: {text}"
    assert world.names(DEPLOYMENT) == []


async def test_it_is_stopped(world: World) -> None:
    await world.start(llm(router=ROUTER))
    service = await world.available()
    service["metadata"]["annotations"] = {"serving.kserve.io/stop": "true"}
    world.registry.update(LLM_INFERENCE_SERVICE, service)
    service = await world.settle()
    assert [world.names(kind) for kind in (DEPLOYMENT, SERVICE, HTTP_ROUTE)] == [[], [], []]
    assert told(service)["Ready"] == "False"
    assert "url" not in service["status"]


async def test_a_deleted_one_loses_its_finalizer(world: World) -> None:
    await world.start(llm())
    world.registry.delete(LLM_INFERENCE_SERVICE, "default", "chat")
    await world.controller.reconcile("default", "chat")
    assert world.registry.find(LLM_INFERENCE_SERVICE, "default", "chat") is None


@pytest.mark.parametrize(("length", "kept"), [(10, True), (56, True), (57, False)])
def test_long_names_get_a_hash(length: int, kept: bool) -> None:
    parent = "a" * length
    name = child_name(parent, "-kserve")
    assert (name == f"{parent}-kserve") == kept
    assert len(name) <= 63
    assert name.endswith("-kserve")
