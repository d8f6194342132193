"""Containers that are served inside the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer
from nodes import Node, node_kubelet, running


async def greet(container: InProcessContainer) -> int:
    container.write_log(b"waiting\n")
    await container.others_ended.wait()
    container.write_log(" ".join(container.args).encode())
    return 0


async def look(container: InProcessContainer) -> int:
    """Tell what can be seen of the pod as soon as its first process runs."""
    while not container.root_pids():
        await asyncio.sleep(0.01)
    container.write_log(f"{container.namespace} {container.root_pids()[0]}".encode())
    return 0


async def broken(container: InProcessContainer) -> int:
    raise RuntimeError("boom")


@pytest.fixture
async def node(registry: Registry, tmp_path: Path) -> AsyncIterator[Node]:
    images = {"greeter": greet, "looker": look, "broken": broken}
    async with running(registry, node_kubelet(registry, tmp_path, in_process_images=images)) as node:
        yield node


async def test_an_in_process_image_ends_after_the_processes(node: Node) -> None:
    containers = [
        {"name": "main", "image": "x", "command": ["sh", "-c", "sleep 0.1"]},
        {"name": "side", "image": "greeter:v1", "args": ["bye", "$(WHO)"], "env": [{"name": "WHO", "value": "all"}]},
    ]
    node.create(containers=containers)
    assert (await node.end())["status"]["phase"] == "Succeeded"
    assert await node.log("side") == "waiting\nbye all"


async def test_a_fault_in_an_in_process_image_fails_only_the_pod(node: Node) -> None:
    node.create(containers=[{"name": "side", "image": "broken"}])
    assert (await node.end())["status"]["phase"] == "Failed"


async def test_an_in_process_image_sees_the_processes_of_its_pod(node: Node) -> None:
    containers = [
        {"name": "main", "image": "x", "command": ["sh", "-c", "echo $$$$; sleep 0.2"]},
        {"name": "side", "image": "looker"},
    ]
    node.create(containers=containers)
    await node.end()
    assert await node.log("side") == f"default {await node.log('main')}".strip()
