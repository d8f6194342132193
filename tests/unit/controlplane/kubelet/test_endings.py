"""Deletion, deadlines, and that no process is left, whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.runtime.protocol import ContainerSpec
from airflow_llmtune.controlplane.kubelet.runtime_client import ContainerProcess, RuntimeClient
from nodes import Node, dead, is_alive, node_kubelet, running, written_pids
from waiting import eventually


async def test_a_pod_the_kubelet_cannot_run_fails_at_once(node: Node, tmp_path: Path) -> None:
    (tmp_path / "pods").write_text("a file where a folder has to be")
    node.create("sleep 60")
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "KubeletError")


async def test_a_pod_the_kubelet_cannot_run_and_that_is_made_again_fails_later(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pods").write_text("a file where a folder has to be")
    async with running(registry, node_kubelet(registry, tmp_path, restart_backoff_base_seconds=60)) as node:
        node.create("sleep 60", restartPolicy="Always")
        await eventually(lambda: "pod default/pod failed inside the kubelet" in caplog.messages)
        assert (node.pod() or {})["status"]["phase"] == "Pending"
        registry.delete(POD, "default", "pod")
        await node.gone()


async def test_the_pods_deadline_kills_it(node: Node) -> None:
    node.create("sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


async def test_a_pod_past_its_deadline_has_not_failed_before_its_containers_have_ended(
    node: Node, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    wait = f"trap 'until [ -e {gate} ]; do sleep 0.02; done; exit 0' TERM; while :; do sleep 0.02; done"
    node.create(wait, activeDeadlineSeconds=1)
    await eventually(lambda: "DeadlineExceeded" in [one["reason"] for one in node.registry.list(EVENT, "default")[0]])
    assert (node.pod() or {})["status"]["phase"] == "Running"
    gate.touch()
    status = (await node.end())["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


async def test_a_process_that_is_just_being_started_gets_its_grace_period_too(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, done, start = tmp_path / "ready", tmp_path / "done", RuntimeClient.start

    async def start_slowly(runtime: RuntimeClient, spec: ContainerSpec) -> ContainerProcess:
        process = await start(runtime, spec)
        await eventually(ready.exists)
        node.registry.delete(POD, "default", "pod")
        await eventually(lambda: "deletionTimestamp" in (node.pod() or {})["metadata"])
        await asyncio.sleep(0.05)
        return process

    monkeypatch.setattr(RuntimeClient, "start", start_slowly)
    node.create(f"trap 'touch {done}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done")
    await node.gone()
    assert done.exists()


async def test_deletion_lets_the_process_end_in_its_grace_period(node: Node, tmp_path: Path) -> None:
    ready, done = tmp_path / "ready", tmp_path / "done"
    node.create(f"trap 'touch {done}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done")
    await eventually(ready.exists)
    marked = node.registry.delete(POD, "default", "pod")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    await node.gone()
    assert done.exists()


async def test_each_container_is_asked_once_to_end(node: Node, tmp_path: Path) -> None:
    # The end of the one changes the pod, which must not ask the other again: many programs then stop at once.
    ready, asked, gate = tmp_path / "ready", tmp_path / "asked", tmp_path / "gate"
    patient = f"trap 'echo asked >> {asked}' TERM; touch {ready}; until [ -e {gate} ]; do sleep 0.02; done"
    containers = [
        {"name": name, "image": "x", "command": ["sh", "-c", script]}
        for name, script in (("quick", "exec sleep 60"), ("patient", patient))
    ]
    node.create(containers=containers)
    await node.until(lambda pod: pod["status"].get("conditions", [{}])[-1].get("status") == "True")
    await eventually(ready.exists)
    node.registry.delete(POD, "default", "pod")
    await node.until(lambda pod: "terminated" in pod["status"]["containerStatuses"][0]["state"])
    await eventually(asked.exists)
    await asyncio.sleep(0.2)
    gate.touch()
    await node.gone()
    assert asked.read_text() == "asked\n"


async def test_a_second_deletion_can_leave_less_time(node: Node) -> None:
    node.create("trap '' TERM; sleep 60 & wait; sleep 60")
    await node.running()
    node.registry.delete(POD, "default", "pod")
    node.registry.delete(POD, "default", "pod", grace_period_seconds=1)
    await node.gone()


async def test_a_pod_that_cannot_be_handled_does_not_end_the_others(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "pods").touch()
    gpu = "nvidia.com/gpu"
    async with running(registry, node_kubelet(registry, tmp_path, node_resources={gpu: "2"})) as node:
        container = {"resources": {"limits": {gpu: "1"}}}
        node.create("true", name="first", container=container)
        await asyncio.sleep(0.05)
        (tmp_path / "pods").unlink()
        node.create("true", name="second", container=container)
        assert (await node.end("second"))["status"]["phase"] == "Succeeded"


async def test_a_process_that_ignores_the_signal_is_killed_with_all_it_started(node: Node, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; setsid sh -c 'echo $$$$; exec sleep 60' >> {pids} & echo $$$$ >> {pids}; wait; sleep 60"
    node.create(script, terminationGracePeriodSeconds=1)
    started = await eventually(lambda: written_pids(pids, 2))
    node.registry.delete(POD, "default", "pod")
    await node.gone()
    await dead(*started)


async def test_a_pod_that_went_unseen_is_killed_too(node: Node, tmp_path: Path) -> None:
    node.create(f"echo $$$$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 60")
    await eventually((tmp_path / "pid").exists)
    node.registry.delete(POD, "default", "pod", grace_period_seconds=0)
    node.registry.store.compact()
    await dead(int((tmp_path / "pid").read_text()))


async def test_a_pod_of_a_node_that_there_is_not_can_be_deleted(node: Node) -> None:
    node.create("true", nodeName="elsewhere")
    node.registry.delete(POD, "default", "pod")
    await node.gone()


async def test_what_a_container_leaves_running_ends_with_it(node: Node, tmp_path: Path) -> None:
    node.create(f"setsid sleep 60 & echo $! > {tmp_path}/pid")
    await node.end()
    await dead(int((tmp_path / "pid").read_text()))


PLANE = """
    import asyncio, sys
    from pathlib import Path
    from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE, POD
    from airflow_llmtune.controlplane.admission import KatibAdmission
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.kubelet import Kubelet
    from airflow_llmtune.controlplane.store import Store

    async def main():
        store = Store()
        registry = Registry(store, KatibAdmission(store))
        registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        script = "echo $$$$; setsid sh -c 'echo $$$$; exec sleep 300' & sleep 300"
        command = ["sh", "-c", f"({script}) > {sys.argv[1]}/pids"]
        spec = {"nodeName": "llmtune-node", "containers": [{"name": "main", "image": "x", "command": command}]}
        registry.create(POD, {"metadata": {"name": "pod", "namespace": "default"}, "spec": spec})
        await Kubelet(registry, Path(sys.argv[2]), is_temporary=True).run()

    asyncio.run(main())
"""


async def test_nothing_survives_a_control_plane_that_is_killed(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    plane = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PLANE), str(tmp_path), str(state_dir)])
    started = await eventually(lambda: written_pids(tmp_path / "pids", 2))
    assert all(is_alive(pid) for pid in started)
    assert state_dir.exists()
    os.kill(plane.pid, signal.SIGKILL)
    plane.wait()
    await dead(*started)
    await eventually(lambda: not state_dir.exists())
