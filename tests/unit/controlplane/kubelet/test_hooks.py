"""How a container begins and how it ends: hooks, readiness while it is leaving, the grace period."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import POD
from nodes import Node, is_ready, terminated, written_pids
from objects import Object
from waiting import eventually


def exec_(script: str) -> Object:
    return {"exec": {"command": ["sh", "-c", script]}}


def hooked(**hooks: Object) -> Object:
    return {"lifecycle": hooks}


def status(pod: Object, index: int = 0) -> Object:
    found: Object = pod["status"]["containerStatuses"][index]
    return found


def waits(gate: Path, note: str = ":") -> str:
    return f"trap '{note}; until [ -e {gate} ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done"


async def test_a_pod_that_is_leaving_is_not_ready_at_once_and_has_not_ended(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    quick = {"name": "quick", "image": "x", "command": ["sleep", "60"]}
    slow = {"name": "slow", "image": "x", "command": ["sh", "-c", waits(gate)]}
    node.create(containers=[slow, quick])
    await node.ready()
    node.registry.delete(POD, "default", "pod")
    pod = await node.until(lambda pod: not is_ready(pod))
    assert [one["ready"] for one in pod["status"]["containerStatuses"]] == [False, False]
    assert status(pod)["started"] is True
    pod = await node.until(lambda pod: "terminated" in status(pod, 1)["state"])
    assert (pod["status"]["phase"], "running" in status(pod)["state"]) == ("Running", True)
    assert sorted(node.events("Killing")) == ["Stopping container quick", "Stopping container slow"]
    gate.touch()
    await node.gone()


async def test_readiness_is_not_looked_at_any_more_in_the_grace_period(node: Node, tmp_path: Path) -> None:
    gate, ready = tmp_path / "gate", tmp_path / "ready"
    ready.touch()
    probe = {"exec": {"command": ["test", "-e", str(ready)]}, "periodSeconds": 1}
    node.create(waits(gate, f"rm {ready}"), container={"readinessProbe": probe, "livenessProbe": probe})
    await node.ready()
    node.registry.delete(POD, "default", "pod")
    await eventually(lambda: not ready.exists())
    await asyncio.sleep(1.5)
    assert node.events() == []
    gate.touch()
    await node.gone()


async def test_the_hook_before_the_end_comes_before_the_signal(node: Node, tmp_path: Path) -> None:
    order = tmp_path / "order"
    ready = tmp_path / "ready"
    script = f"trap 'echo signal >> {order}; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done"
    hook = exec_(f"sleep 0.3; echo hook >> {order}")
    node.create(script, container=hooked(preStop=hook))
    await eventually(ready.exists)
    node.registry.delete(POD, "default", "pod")
    await node.gone()
    assert order.read_text() == "hook\nsignal\n"


async def test_a_hook_that_takes_the_whole_grace_period_leaves_a_moment_for_the_signal(
    node: Node, tmp_path: Path
) -> None:
    done, ready = tmp_path / "done", tmp_path / "ready"
    script = f"trap 'sleep 0.5; touch {done}; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done"
    node.create(script, container=hooked(preStop=exec_(f"echo $$$$ > {tmp_path}/pid; exec sleep 60")))
    await eventually(ready.exists)
    node.registry.delete(POD, "default", "pod", grace_period_seconds=1)
    await node.gone()
    assert done.exists()


async def test_a_container_that_ends_by_itself_ends_its_hook(node: Node, tmp_path: Path) -> None:
    gate, ready, pid = tmp_path / "gate", tmp_path / "ready", tmp_path / "pid"
    node.create(
        f"touch {ready}; until [ -e {gate} ]; do sleep 0.02; done",
        container=hooked(preStop=exec_(f"echo $$$$ > {pid}; exec sleep 60")),
    )
    await eventually(ready.exists)
    node.registry.delete(POD, "default", "pod")
    await eventually(lambda: written_pids(pid))
    gate.touch()
    await node.gone()


async def test_a_hook_can_just_wait(node: Node, tmp_path: Path) -> None:
    asked, ready = tmp_path / "asked", tmp_path / "ready"
    script = f"trap 'touch {asked}; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done"
    node.create(script, container=hooked(preStop={"sleep": {"seconds": 1}}))
    await eventually(ready.exists)
    node.registry.delete(POD, "default", "pod")
    await asyncio.sleep(0.5)
    assert not asked.exists()
    await node.gone()
    assert asked.exists()


@pytest.mark.parametrize("hook", [exec_("exit 1"), {"exec": {"command": ["/no/such"]}}])
async def test_a_hook_that_fails_is_told_and_the_end_goes_on(node: Node, hook: Object) -> None:
    node.create("trap 'exit 0' TERM; while :; do sleep 0.02; done", container=hooked(preStop=hook))
    await node.ready()
    node.registry.delete(POD, "default", "pod")
    await node.gone()
    assert node.events("FailedPreStopHook") == ["PreStopHook failed"]


async def test_a_container_has_started_when_the_hook_after_its_start_is_done(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    hook = exec_(f"until [ -e {gate} ]; do sleep 0.02; done")
    node.create("sleep 60", container=hooked(postStart=hook))
    pod = await node.running()
    assert (status(pod)["started"], status(pod)["ready"]) == (False, False)
    gate.touch()
    assert status(await node.ready())["started"] is True


async def test_a_container_ends_when_the_hook_after_its_start_fails(node: Node) -> None:
    node.create("trap 'exit 3' TERM; while :; do sleep 0.02; done", container=hooked(postStart=exec_("exit 1")))
    assert terminated(await node.end())["exitCode"] == 3
    assert node.events("FailedPostStartHook") == ["PostStartHook failed"]


async def test_a_request_has_done_its_work_whatever_it_is_answered(node: Node) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port: Any = server.sockets[0].getsockname()[1]
    async with server:
        node.create("sleep 60", container=hooked(postStart={"httpGet": {"port": port}}))
        await node.ready()
    assert node.events("FailedPostStartHook") == []
