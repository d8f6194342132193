"""What the gateway knows of the store, and what it writes into the status of routes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE, POD, SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.gateway.controller import HttpRouteController
from airflow_llmtune.controlplane.gateway.endpoints import Endpoint
from airflow_llmtune.controlplane.gateway.request import Asked
from airflow_llmtune.controlplane.gateway.routes import Backend
from airflow_llmtune.controlplane.gateway.table import RoutingTable
from objects import Object

BACKEND = Backend("default", "model", 80)
GATEWAY = {"name": "kserve-ingress-gateway", "namespace": "kserve"}


class World:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self.table = RoutingTable(registry)
        self.controller = HttpRouteController(registry, clock)

    def service(self, target: Any = "http", **spec: Any) -> None:
        wanted = {"selector": {"app": "model"}, "ports": [{"port": 80, "targetPort": target}], **spec}
        self.registry.create(SERVICE, {"metadata": {"name": "model", "namespace": "default"}, "spec": wanted})

    def pod(self, name: str, *, namespace: str = "default", app: str = "model", ready: bool = True) -> None:
        container = {"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 8080}]}
        metadata = {"name": name, "namespace": namespace, "labels": {"app": app, "more": "1"}}
        self.registry.create(POD, {"metadata": metadata, "spec": {"containers": [container], "nodeName": "n"}})
        self.tell(name, namespace=namespace, ready=ready)

    def tell(self, name: str, *, namespace: str = "default", ready: bool) -> None:
        pod = self.registry.get(POD, namespace, name)
        pod["status"] |= {
            "podIP": f"127.0.0.{name}",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        self.registry.update_status(POD, pod)

    def route(self, *backends: Object, name: str = "model", **spec: Any) -> None:
        rules = [{"backendRefs": list(backends)}]
        obj = {"metadata": {"name": name, "namespace": "default"}, "spec": {"parentRefs": [GATEWAY], "rules": rules}}
        obj["spec"] |= spec
        self.registry.create(HTTP_ROUTE, obj)

    @property
    def addresses(self) -> list[str]:
        self.table.catch_up()
        return [f"{one.address}:{one.port}" for one in self.table.endpoints(BACKEND)]

    @property
    def has_route(self) -> bool:
        self.table.catch_up()
        return self.table.find(Asked("GET", "h", "/")) is not None

    async def conditions(self, name: str = "model") -> list[tuple[str, str, str, str]]:
        await self.controller.reconcile("default", name)
        (parent,) = self.registry.get(HTTP_ROUTE, "default", name)["status"]["parents"]
        assert parent["parentRef"] == {"group": "gateway.networking.k8s.io", "kind": "Gateway", **GATEWAY}
        return [tuple(one[field] for field in ("type", "status", "reason", "message")) for one in parent["conditions"]]


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def test_only_ready_pods_of_the_selector_and_the_namespace_are_endpoints(world: World) -> None:
    world.service()
    world.pod("1")
    world.pod("2", ready=False)
    world.pod("3", app="other")
    world.pod("4", namespace="plain")
    assert world.addresses == ["127.0.0.1:8080"]


def test_an_endpoint_is_gone_as_soon_as_its_pod_is_not_ready_or_terminating(world: World) -> None:
    world.service()
    world.pod("1")
    world.pod("2")
    world.tell("1", ready=False)
    assert world.addresses == ["127.0.0.2:8080"]
    world.tell("1", ready=True)
    world.registry.delete(POD, "default", "2")
    assert world.registry.find(POD, "default", "2") is not None
    assert world.addresses == ["127.0.0.1:8080"]
    world.registry.delete(POD, "default", "1", grace_period_seconds=0)
    assert world.addresses == []


@pytest.mark.parametrize(
    ("target", "spec", "addresses"),
    [
        (9000, {}, ["127.0.0.1:9000"]),
        ("9000", {}, ["127.0.0.1:9000"]),
        (None, {}, ["127.0.0.1:80"]),
        ("grpc", {}, []),
        ("http", {"selector": None}, []),
        ("http", {"ports": [{"port": 81}]}, []),
        ("http", {"clusterIP": "None"}, ["127.0.0.1:8080"]),
    ],
)
def test_the_port_is_the_services_target(world: World, target: Any, spec: Object, addresses: list[str]) -> None:
    world.service(target, **spec)
    world.pod("1")
    assert world.addresses == addresses


@pytest.mark.parametrize(
    "status",
    [
        {"podIP": 5, "conditions": [{"type": "Ready", "status": "True"}]},
        {"podIP": "127.0.0.1", "conditions": [{"type": "Ready"}]},
        {"podIP": "127.0.0.1", "conditions": [None]},
        {"podIP": "127.0.0.1", "conditions": 5},
    ],
)
def test_a_pod_with_an_odd_status_gets_nothing(world: World, status: Object) -> None:
    world.service()
    world.pod("1")
    pod = world.registry.get(POD, "default", "1")
    world.registry.update_status(POD, {**pod, "status": status})
    assert world.addresses == []


def test_without_the_service_there_is_no_endpoint(world: World) -> None:
    world.pod("1")
    assert world.addresses == []
    world.service()
    assert world.addresses == ["127.0.0.1:8080"]


def test_a_forgotten_history_is_no_loss(world: World) -> None:
    world.service()
    world.pod("1")
    assert (world.addresses, world.has_route) == (["127.0.0.1:8080"], False)
    world.registry.delete(POD, "default", "1", grace_period_seconds=0)
    world.pod("2")
    world.route()
    world.registry.store.resync()
    assert (world.addresses, world.has_route) == (["127.0.0.2:8080"], True)
    world.pod("3")
    assert world.addresses == ["127.0.0.2:8080", "127.0.0.3:8080"]


def test_a_route_is_served_as_soon_as_it_is_there_and_no_longer(world: World) -> None:
    assert not world.has_route
    world.route()
    assert world.has_route
    world.registry.delete(HTTP_ROUTE, "default", "model")
    assert not world.has_route


def test_what_is_there_already_is_known(world: World) -> None:
    world.service()
    world.pod("1")
    world.route()
    fresh = RoutingTable(world.registry)
    fresh.catch_up()
    uid = world.registry.get(POD, "default", "1")["metadata"]["uid"]
    assert fresh.endpoints(BACKEND) == [Endpoint("1", uid, "127.0.0.1", 8080)]
    assert fresh.find(Asked("GET", "h", "/")) is not None


async def test_following_leaves_nothing_to_catch_up_with_and_who_waits_hears_of_each_change(world: World) -> None:
    following = asyncio.create_task(world.table.follow())
    await asyncio.sleep(0)
    for change in (world.service, world.route, lambda: world.pod("1")):
        waiting = asyncio.create_task(world.table.change())
        await asyncio.sleep(0)
        change()
        async with asyncio.timeout(5):
            await waiting
    await asyncio.sleep(0)
    assert len(world.table.endpoints(BACKEND)) == 1
    following.cancel()


async def test_a_route_whose_backends_are_there_is_accepted(world: World) -> None:
    world.service()
    world.route({"name": "model", "port": 80})
    assert await world.conditions() == [
        ("Accepted", "True", "Accepted", "the route is served"),
        ("ResolvedRefs", "True", "ResolvedRefs", "all backends are there"),
    ]
    before = world.registry.resource_version
    await world.controller.reconcile("default", "model")
    assert world.registry.resource_version == before


@pytest.mark.parametrize(
    ("backend", "reason", "text"),
    [
        ({"name": "none", "port": 80}, "BackendNotFound", 'Service "none" not found'),
        ({"name": "model", "port": 81}, "BackendNotFound", 'Service "model" has no port 81'),
        ({"name": "model", "port": 80, "namespace": "plain"}, "RefNotPermitted", "in the namespace plain"),
        (
            {"name": "p", "group": "inference.networking.k8s.io", "kind": "InferencePool"},
            "InvalidKind",
            "of the kind InferencePool.inference.networking.k8s.io, not a Service",
        ),
    ],
)
async def test_a_backend_that_cannot_be_used_is_told(world: World, backend: Object, reason: str, text: str) -> None:
    world.service()
    world.route({"name": "model", "port": 80}, backend)
    assert world.has_route
    (_, _, _, _), (type_, status, told, message) = await world.conditions()
    assert (type_, status, told) == ("ResolvedRefs", "False", reason)
    assert text in message


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            {"filters": [{"type": "CORS", "cors": {}}]},
            "rules[0]: this gateway does not apply the filter CORS",
        ),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": "(?<=a)b"}}]},
            "rules[0]: '(?<=a)b' is not a regular expression",
        ),
    ],
)
async def test_a_route_that_asks_for_what_is_not_done_here_is_not_served(world: World, rule: Object, text: str) -> None:
    world.route(rules=[rule])
    assert not world.has_route
    assert (await world.conditions())[0] == ("Accepted", "False", "UnsupportedValue", text)


async def test_a_route_without_a_gateway_is_served_by_none(world: World) -> None:
    world.route(parentRefs=[{"name": "model", "group": "", "kind": "Service"}])
    assert not world.has_route
    await world.controller.reconcile("default", "model")
    assert not world.registry.get(HTTP_ROUTE, "default", "model").get("status")


async def test_a_condition_keeps_its_time_until_its_status_changes(world: World, clock: Any) -> None:
    world.route({"name": "model", "port": 80})
    await world.conditions()
    clock.advance(60)
    world.service()
    service = world.registry.get(SERVICE, "default", "model")
    assert list(world.controller.keys_for(SERVICE, service)) == [("default", "model")]
    await world.conditions()
    (parent,) = world.registry.get(HTTP_ROUTE, "default", "model")["status"]["parents"]
    times = {one["type"]: one["lastTransitionTime"] for one in parent["conditions"]}
    assert times == {"Accepted": "2026-11-22T09:00:00Z", "ResolvedRefs": "2026-11-22T09:01:00Z"}
    await world.controller.reconcile("default", "not there")
