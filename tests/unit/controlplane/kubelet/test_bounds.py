"""What a container may use at most: memory, processes, output, devices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.devices import device_names, devices_of_container, devices_of_pod
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.runtime.log_file import MAX_BYTES
from airflow_llmtune.controlplane.kubelet.storage import excess, has_limits
from nodes import Node, dead, node_kubelet, running, terminated, written_pids
from objects import Object
from waiting import eventually

GPU = "nvidia.com/gpu"


async def test_a_container_over_its_memory_limit_is_killed_with_all_it_started(node: Node, tmp_path: Path) -> None:
    hungry = f"import time; hoard = bytearray(96 * 1024 * 1024); open('{tmp_path}/full', 'w').close(); time.sleep(60)"
    script = f'sleep 60 & echo $! > {tmp_path}/pid; {sys.executable} -I -S -c "{hungry}" & wait'
    node.create(script, container={"resources": {"limits": {"memory": "64Mi"}}})
    ended = terminated(await node.end())
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert (tmp_path / "full").exists()
    await dead((await eventually(lambda: written_pids(tmp_path / "pid")))[0])


async def test_memory_that_processes_share_counts_once(node: Node, tmp_path: Path) -> None:
    # Forked children see the same pages: three times 40 MiB by a count of each, one time in truth.
    shared = """
import os, time
hoard = bytearray(40 * 1024 * 1024)
children = [os.fork() for _ in range(2)]
time.sleep(2.5)
"""
    container = {
        "command": [sys.executable, "-I", "-S", "-c", shared],
        "resources": {"limits": {"memory": "80Mi"}},
    }
    node.create(container=container)
    assert (await node.end())["status"]["phase"] == "Succeeded"


async def test_a_printing_loop_does_not_fill_the_disk(node: Node, tmp_path: Path) -> None:
    node.create(f"yes 0123456789 | head -c {3 * MAX_BYTES}; echo; echo last")
    await node.end()
    files = list(tmp_path.glob("pods/*/logs/main/*"))
    assert sum(file.stat().st_size for file in files) < 2.1 * MAX_BYTES
    assert await node.log(tail_lines=1) == "last\n"
    assert len(await node.log()) > MAX_BYTES


async def test_a_pod_that_fills_its_volume_is_evicted(node: Node) -> None:
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    node.create("head -c 2000000 /dev/zero > /v/f; sleep 60", container=container, volumes=volumes)
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert status["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


@pytest.mark.parametrize(
    ("volume", "main", "side", "message"),
    [
        (10, 20, 30, ""),
        (101, 0, 0, 'Usage of EmptyDir volume "v" exceeds the limit "100". '),
        (0, 301, 0, "Pod ephemeral local storage usage exceeds the total limit of containers 300. "),
        (0, 150, 60, 'Container main exceeded its local ephemeral storage limit "100". '),
    ],
)
def test_storage_is_limited_by_volume_pod_and_container(
    tmp_path: Path, volume: int, main: int, side: int, message: str
) -> None:
    def container(name: str, limit: str) -> Object:
        return {"name": name, "resources": {"limits": {"ephemeral-storage": limit}}}

    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "100"}}, {"name": "claim", "persistentVolumeClaim": {}}]
    spec = {"containers": [container("main", "100"), container("side", "200")], "volumes": volumes}
    folder = PodFolder(tmp_path, "uid")
    used = {folder.volumes / "v": volume, folder.container("main"): main, folder.logs("side"): side}
    usage = {**used, folder.path: sum(used.values())}
    assert has_limits(spec)
    assert excess(spec, folder, lambda path: usage.get(path, 0)) == message


async def test_each_pod_sees_the_devices_it_asked_for_and_no_others(registry: Registry, tmp_path: Path) -> None:
    def asking(count: int) -> Object:
        return {"resources": {"limits": {GPU: count}}} if count else {}

    gate = tmp_path / "gate"
    echo = "echo $CUDA_VISIBLE_DEVICES/$NVIDIA_VISIBLE_DEVICES"
    show = f"{echo} > {tmp_path}/NAME; until [ -e {gate} ]; do sleep 0.02; done"
    kubelet = node_kubelet(registry, tmp_path, node_resources={GPU: "3"})
    async with running(registry, kubelet) as node:
        for name, count in {"one": 1, "none": 0, "two": 2}.items():
            node.create(show.replace("NAME", name), name=name, container=asking(count))
            await node.running(name)
        files = [tmp_path / name for name in ("one", "none", "two")]
        await eventually(lambda: all(file.exists() and file.read_text() for file in files))
        seen = [file.read_text() for file in files]
        node.create("true", name="late", container=asking(1))
        status = (await node.end("late"))["status"]
        gate.touch()
        await node.end("two")
        node.create("exit $CUDA_VISIBLE_DEVICES", name="later", container=asking(1))
        await node.end("later")
    assert [text.strip() for text in seen] == ["0/0", "/void", "1,2/1,2"]
    assert (status["phase"], status["reason"]) == ("Failed", "UnexpectedAdmissionError")
    assert status["message"].endswith(f"unavailable for {GPU}. Requested: 1, Available: 0, which is unexpected")


async def test_devices_are_kept_over_a_kill_of_the_kubelet(registry: Registry, tmp_path: Path) -> None:
    container = {"resources": {"limits": {GPU: "1"}}}
    settings = {"node_resources": {GPU: "2"}}
    async with running(
        registry, node_kubelet(registry, tmp_path, outage_seconds=30.0, **settings), leaves=True
    ) as node:
        node.create("sleep 60", container=container)
        await node.running()
    async with running(registry, node_kubelet(registry, tmp_path, **settings)) as node:
        node.create("exit $CUDA_VISIBLE_DEVICES", name="next", container=container)
        assert terminated(await node.end("next"))["exitCode"] == 1


async def test_without_declared_devices_a_pod_has_those_of_the_machine(node: Node) -> None:
    node.create("echo ${CUDA_VISIBLE_DEVICES-unset}")
    await node.end()
    assert await node.log() == "unset\n"


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [(2, "", ["0", "1"]), (2, "4,5,6", ["4", "5"]), (2, "7", ["0", "1"]), (0, "", [])],
)
def test_only_devices_that_the_control_plane_sees_itself_are_given_away(
    count: int, visible: str, names: list[str]
) -> None:
    assert device_names(count, visible) == names


def test_containers_of_a_pod_divide_its_devices() -> None:
    def container(name: str, count: int) -> Object:
        return {"name": name, "resources": {"limits": {GPU: count}}}

    spec = {"containers": [container("a", 1), container("b", 2)], "initContainers": [container("i", 1)]}
    assert devices_of_pod(spec) == 3
    shares = {name: devices_of_container(spec, name, ["x", "y", "z"]) for name in "abi"}
    assert shares == {"a": ["x"], "b": ["y", "z"], "i": ["x"]}
