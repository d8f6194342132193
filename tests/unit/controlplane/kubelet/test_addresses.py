"""Pods of ReplicaSets have addresses of their own, which their containers are told and names lead to."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import POD, SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.addresses import Addresses, can_bind
from airflow_llmtune.controlplane.kubelet.host_names import HostNames
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.pod_view import PodView
from nodes import Node, is_ready, node_kubelet, running
from objects import Object

OWNER: Object = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
REPLICA: Object = {"ownerReferences": [OWNER], "labels": {"app": "web"}}


def pod(uid: str, *ports: int, **status: Any) -> Object:
    container = {"name": "main", "ports": [{"containerPort": port} for port in ports]}
    metadata = {"name": uid, "namespace": "default", "uid": uid, **REPLICA}
    return {"metadata": metadata, "spec": {"containers": [container]}, "status": status}


@pytest.fixture
def has_many_addresses() -> bool:
    """Linux; elsewhere such pods share the one address."""
    return can_bind("127.77.88.99", (0,))


def test_each_gets_one_that_no_other_has_outside_of_the_hosts_own(has_many_addresses: bool) -> None:
    addresses = Addresses()
    given = {addresses.given(pod(f"u{number}"))["status"]["podIP"] for number in range(50)}
    if not has_many_addresses:
        assert given == {"127.0.0.1"}
        return
    assert len(given) == 50
    for one in map(ipaddress.ip_address, given):
        assert one.is_loopback
        assert one not in ipaddress.ip_network("127.0.0.0/16")


def test_one_that_an_earlier_kubelet_gave_stays() -> None:
    assert Addresses().given(pod("u", podIP="127.9.9.9"))["status"]["podIP"] == "127.9.9.9"


@pytest.mark.parametrize("owner", [{**OWNER, "kind": "Job"}, {**OWNER, "controller": False}])
def test_other_pods_get_none(owner: Object) -> None:
    other = pod("u")
    other["metadata"]["ownerReferences"] = [owner]
    assert Addresses().given(other) == other


def test_a_port_that_is_taken_shows() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not can_bind("127.0.0.1", (0, port))
    assert can_bind("127.0.0.1", (port,))


async def test_its_containers_are_told_and_its_status_shows_it(node: Node, has_many_addresses: bool) -> None:
    fields = {"IP": "status.podIP", "IPS": "status.podIPs", "HOST": "status.hostIP"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    node.create("echo $IP $IPS $HOST", container={"env": env}, metadata=REPLICA)
    status = (await node.end())["status"]
    address = status["podIP"]
    assert (status["podIPs"], status["hostIP"]) == ([{"ip": address}], "127.0.0.1")
    assert (address != "127.0.0.1") is has_many_addresses
    assert await node.log() == f"{address} {address} 127.0.0.1\n"


async def test_it_stays_the_same_under_the_next_kubelet(registry: Registry, tmp_path: Path) -> None:
    async with running(registry, node_kubelet(registry, tmp_path, outage_seconds=30.0), leaves=True) as node:
        node.create("trap '' TERM; while :; do sleep 0.05; done", metadata=REPLICA)
        before = (await node.ready())["status"]["podIP"]
    async with running(registry, node_kubelet(registry, tmp_path)) as node:
        node.registry.delete(POD, "default", "pod", grace_period_seconds=20)
        after = await node.until(lambda pod: not is_ready(pod))
        assert after["status"]["podIP"] == before


def service(registry: Registry, name: str, **spec: Any) -> None:
    registry.create(SERVICE, {"metadata": {"name": name}, "spec": spec}, "default")


def test_the_name_of_a_service_leads_to_a_ready_pod_with_an_address_of_its_own(
    registry: Registry, tmp_path: Path
) -> None:
    service(registry, "web", selector={"app": "web"})
    service(registry, "other", selector={"app": "other"})
    service(registry, "none")
    names = HostNames(registry, {}, "127.0.0.1")

    def noted(uid: str, address: str, ready: str) -> Object:
        one = pod(uid, podIP=address, conditions=[{"type": "Ready", "status": ready}])
        names.note(one)
        return one

    def found() -> list[str]:
        hosts = names.of("default")
        return [hosts[name] for name in ("web", "other", "none")]

    noted("a", "127.1.1.1", "False")
    assert found() == ["127.0.0.1"] * 3
    second = noted("b", "127.1.1.2", "True")
    noted("a", "127.1.1.1", "True")
    assert found() == ["127.1.1.2", "127.0.0.1", "127.0.0.1"]
    names.add(second, PodView(second, PodFolder(tmp_path, "b"), b"", lambda kind, name: None))
    names.remove("b")
    assert found()[0] == "127.1.1.1"
    noted("a", "127.1.1.1", "False")
    assert found()[0] == "127.0.0.1"
