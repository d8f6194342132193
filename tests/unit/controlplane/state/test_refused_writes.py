"""A state directory that takes no writes for a while: what pods did meanwhile is made up for afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, NODE, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.scheduler import Scheduler
from airflow_llmtune.controlplane.state.identity import new_identity
from airflow_llmtune.controlplane.state.kept import DurableState, state_of
from airflow_llmtune.controlplane.store import Store
from nodes import Node, node_kubelet, running
from waiting import eventually


@dataclass
class World:
    """A node and a scheduler over a state directory that can be made read-only."""

    state: DurableState
    registry: Registry
    node: Node

    def refuse_writes(self, refused: bool) -> None:
        self.state._database.read(f"PRAGMA query_only = {'ON' if refused else 'OFF'}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path) as made:
        yield made


@asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[World]:
    with state_of(folder, "127.0.0.1", new_identity("127.0.0.1")) as state:
        assert isinstance(state, DurableState)
        store = Store(journal=state.objects)
        registry = Registry(store, KatibAdmission(store))
        registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        parts = [asyncio.create_task(part) for part in (state.maintain(store), Scheduler(registry).run())]
        try:
            async with running(registry, node_kubelet(registry, folder)) as node:
                await eventually(lambda: registry.list(NODE)[0])
                yield World(state, registry, node)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)


async def test_a_pod_that_ends_while_nothing_can_be_written_is_reported_later(world: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    world.node.create(f"until [ -e {gate} ]; do sleep 0.02; done; exit 3")
    await world.node.running()
    world.refuse_writes(True)
    gate.touch()
    with pytest.raises(ApiError, match="cannot write to its state directory"):
        world.node.create("true", name="refused")
    # Its end cannot be seen from outside: that is what this is about.
    await asyncio.sleep(0.5)
    assert world.node.pod()["status"]["phase"] == "Running"
    world.refuse_writes(False)
    assert (await world.node.end())["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_a_deletion_that_could_not_be_written_is_made_up_for(world: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    world.node.create(f"trap '' TERM; until [ -e {gate} ]; do sleep 0.02; done")
    await world.node.running()
    world.registry.delete(POD, "default", "pod")
    world.refuse_writes(True)
    gate.touch()
    await asyncio.sleep(0.5)
    assert world.node.pod() is not None
    world.refuse_writes(False)
    await world.node.gone()


async def test_a_pod_that_could_not_be_bound_is_bound_later(world: World) -> None:
    world.node.create("true", nodeName="")
    # Before the scheduler has had its turn.
    world.refuse_writes(True)
    await asyncio.sleep(0.5)
    assert not world.node.pod()["spec"].get("nodeName")
    world.refuse_writes(False)
    await eventually(lambda: world.node.pod()["spec"].get("nodeName"))
    assert (await world.node.end())["status"]["phase"] == "Succeeded"
