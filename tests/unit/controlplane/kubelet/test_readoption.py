"""A kubelet that is killed leaves its containers to the next one on the same folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer
from airflow_llmtune.controlplane.kubelet.runtime import processes
from nodes import Node, dead, is_alive, node_kubelet, running, terminated, written_pids
from objects import Object
from waiting import eventually

NAP = "until [ -e {gate} ]; do sleep 0.02; done"


class Restarts:
    """One kubelet after the other over one registry and one folder."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self.gate = folder / "gate"

    def killed(self, **settings: Any) -> Any:
        kubelet = node_kubelet(self._registry, self._folder, outage_seconds=30.0, **settings)
        return running(self._registry, kubelet, leaves=True)

    def next(self, **settings: Any) -> Any:
        return running(self._registry, node_kubelet(self._registry, self._folder, **settings))

    def waits(self, script: str) -> str:
        """A script that first waits for the gate."""
        return f"{NAP.format(gate=self.gate)}; {script}"


@pytest.fixture
def restarts(registry: Registry, tmp_path: Path) -> Restarts:
    return Restarts(registry, tmp_path)


def started(registry: Registry) -> int:
    return sum(one.get("count", 1) for one in registry.list(EVENT, "default")[0] if one["reason"] == "Started")


async def test_a_running_container_goes_on_under_the_next_kubelet(restarts: Restarts, registry: Registry) -> None:
    script = restarts.waits("echo after; printf done > $OUT; exit 3")
    container = {"env": [{"name": "OUT", "value": "/dev/termination-log"}]}
    async with restarts.killed() as node:
        node.create(f"echo before; {script}", container=container)
        before = await node.running()
    async with restarts.next() as node:
        restarts.gate.touch()
        after = await node.end()
        assert await node.log() == "before\nafter\n"
    state = terminated(after)
    assert (state["exitCode"], state["reason"], state["message"]) == (3, "Error", "done")
    assert state["startedAt"] == before["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert started(registry) == 1


async def test_what_ended_meanwhile_is_told_with_its_exit_code(restarts: Restarts, tmp_path: Path) -> None:
    async with restarts.killed() as node:
        node.create(f"echo $$$$ > {tmp_path}/pid; {restarts.waits('exit 7')}")
        await node.running()
        pid = (await eventually(lambda: written_pids(tmp_path / "pid")))[0]
    restarts.gate.touch()
    await dead(pid)
    async with restarts.next() as node:
        assert terminated(await node.end())["exitCode"] == 7


async def test_no_container_ends_before_it_began_though_a_clock_was_set_back(restarts: Restarts) -> None:
    def ahead() -> datetime:
        return datetime(2099, 1, 1, tzinfo=UTC)

    async with restarts.killed(clock=ahead) as node:
        node.create(restarts.waits("exit 0"))
        await node.running()
    restarts.gate.touch()
    await asyncio.sleep(0.2)
    async with restarts.next(clock=ahead) as node:
        ended = terminated(await node.end())
    assert ended["finishedAt"] >= ended["startedAt"]


async def test_restarts_and_finished_init_containers_are_remembered(restarts: Restarts, tmp_path: Path) -> None:
    counter = tmp_path / "tries"
    script = f"echo x >> {counter}; [ $(wc -l < {counter}) -ge 2 ] || exit 1; {restarts.waits('exit 0')}"
    init = [{"name": "init", "image": "x", "command": ["sh", "-c", f"echo y >> {tmp_path}/inits"]}]
    async with restarts.killed() as node:
        node.create(script, initContainers=init, restartPolicy="OnFailure")
        await node.until(lambda pod: pod["status"].get("containerStatuses", [{}])[0].get("restartCount") == 1)
        await node.running()
    async with restarts.next() as node:
        restarts.gate.touch()
        status = (await node.end())["status"]
    assert status["phase"] == "Succeeded"
    assert status["containerStatuses"][0]["restartCount"] == 1
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    assert (tmp_path / "inits").read_text() == "y\n"


async def test_a_container_that_failed_meanwhile_is_started_again(restarts: Restarts, tmp_path: Path) -> None:
    counter = tmp_path / "tries"
    script = f"echo $$$$ >> {counter}; [ $(wc -l < {counter}) -lt 2 ] || exit 0; {restarts.waits('exit 1')}"
    async with restarts.killed() as node:
        node.create(script, restartPolicy="OnFailure")
        await node.running()
        pid = (await eventually(lambda: written_pids(counter)))[0]
    restarts.gate.touch()
    await dead(pid)
    async with restarts.next() as node:
        status = (await node.end())["status"]
    assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Succeeded", 1)


async def test_a_container_that_waits_to_be_started_again_is_started_by_the_next_kubelet(
    restarts: Restarts, tmp_path: Path
) -> None:
    script = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 3 ]"
    async with restarts.killed(restart_backoff_base_seconds=60.0) as node:
        node.create(script, restartPolicy="OnFailure")
        await node.until(lambda pod: "CrashLoopBackOff" in str(pod["status"].get("containerStatuses")))
    async with restarts.next() as node:
        status = (await node.end())["status"]
        assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Succeeded", 2)
        assert await node.log(previous=True) == ""


async def test_a_sidecar_inside_the_control_plane_begins_anew(restarts: Restarts) -> None:
    async def count(container: InProcessContainer) -> int:
        container.write_log(b"begun\n")
        await container.others_ended.wait()
        return 0

    containers = [
        {"name": "main", "image": "x", "command": ["sh", "-c", restarts.waits("exit 0")]},
        {"name": "side", "image": "counter"},
    ]
    async with restarts.killed(in_process_images={"counter": count}) as node:
        node.create(containers=containers)
        await node.until(lambda pod: all("running" in one["state"] for one in statuses(pod)))
    async with restarts.next(in_process_images={"counter": count}) as node:
        restarts.gate.touch()
        assert (await node.end())["status"]["phase"] == "Succeeded"
        assert await node.log("side") == "begun\n"


def statuses(pod: Object) -> list[Object]:
    found: list[Object] = pod["status"].get("containerStatuses", [])
    return found if len(found) == 2 else [{"state": {}}]


async def test_a_pod_whose_runtime_was_lost_with_the_kubelet_fails(
    restarts: Restarts, registry: Registry, tmp_path: Path
) -> None:
    async with restarts.killed() as node:
        node.create(f"trap '' TERM; echo $$$$ > {tmp_path}/pid; sleep 60 & wait; sleep 60", restartPolicy="Always")
        await node.running()
        pids = await eventually(lambda: written_pids(tmp_path / "pid"))
        os.kill(runtime_of(pids[0]), signal.SIGKILL)
    async with restarts.next() as node:
        status = (await node.end())["status"]
    await dead(*pids)
    assert (status["phase"], status["reason"]) == ("Failed", "NodeLost")
    assert status["message"] == "Node llmtune-node which was running pod default/pod has lost its processes"
    state = status["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"]) == (137, "ContainerStatusUnknown")
    disrupted = next(one for one in status["conditions"] if one["type"] == "DisruptionTarget")
    assert (disrupted["status"], disrupted["reason"]) == ("True", "TerminationByKubelet")


async def test_pods_of_a_runtime_that_is_killed_fail_and_the_next_pod_gets_a_new_one(
    node: Node, tmp_path: Path
) -> None:
    node.create(f"setsid sleep 60 & echo $! > {tmp_path}/pid; echo $$$$ >> {tmp_path}/pid; sleep 60")
    pids = await eventually(lambda: written_pids(tmp_path / "pid", 2))
    socket = Path(json.loads((tmp_path / "runtime.json").read_text())["socket"])
    os.kill(runtime_of(pids[1]), signal.SIGKILL)
    assert (await node.end())["status"]["reason"] == "NodeLost"
    await dead(*pids)
    node.create("echo well", name="next")
    assert (await node.end("next"))["status"]["phase"] == "Succeeded"
    assert not socket.parent.exists()


def runtime_of(first: int) -> int:
    """The parent of the shim that is the parent of a container's first process."""
    for _ in range(2):
        first = int(Path(f"/proc/{first}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return first


async def test_a_pod_deleted_while_no_kubelet_ran_is_ended(
    restarts: Restarts, registry: Registry, tmp_path: Path
) -> None:
    async with restarts.killed() as node:
        for name in ("gone", "marked"):
            node.create(f"echo $$$$ > {tmp_path}/{name}; exec sleep 60", name=name)
            await node.running(name)
        pids = [(await eventually(partial(written_pids, tmp_path / name)))[0] for name in ("gone", "marked")]
    registry.delete(POD, "default", "gone", grace_period_seconds=0)
    registry.delete(POD, "default", "marked", grace_period_seconds=1)
    assert all(is_alive(pid) for pid in pids)
    async with restarts.next() as node:
        await dead(*pids)
        await node.gone("marked")
        await eventually(lambda: not any((tmp_path / "pods").iterdir()))


async def test_containers_end_when_no_kubelet_comes_back_in_time(registry: Registry, tmp_path: Path) -> None:
    kubelet = node_kubelet(registry, tmp_path, outage_seconds=1.0)
    async with running(registry, kubelet, leaves=True) as node:
        node.create(f"setsid sleep 60 & echo $! > {tmp_path}/pid; echo $$$$ >> {tmp_path}/pid; sleep 60")
        pids = await eventually(lambda: written_pids(tmp_path / "pid", 2))
    await asyncio.sleep(0.05)
    assert all(is_alive(pid) for pid in pids)
    await dead(*pids)
    await eventually(lambda: not (tmp_path / "runtime.json").exists())


async def test_a_process_that_hides_its_environment_does_not_escape(node: Node, tmp_path: Path) -> None:
    # A session of its own, an orphan, and without the mark: only its shim knows whose it is.
    hidden = f"env -i {os.environ.get('SHELL', '/bin/sh')} -c 'echo $$$$ > {tmp_path}/pid; exec sleep 60'"
    node.create(f"(setsid {hidden} &); until [ -s {tmp_path}/pid ]; do sleep 0.02; done")
    await node.end()
    pid = (await eventually(lambda: written_pids(tmp_path / "pid")))[0]
    assert processes.marked("x") == []
    await dead(pid)
