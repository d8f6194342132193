"""Probes of containers that run: when they count as started and ready, and when they are started again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from nodes import Node, dead, is_ready, node_kubelet, running, terminated, written_pids
from objects import Object
from waiting import eventually

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.02; done"


def probe(action: Object, **settings: Any) -> Object:
    return {**action, "periodSeconds": 1, **settings}


def exists(path: Path) -> Object:
    return {"exec": {"command": ["test", "-e", str(path)]}}


def status(pod: Object) -> Object:
    found: Object = pod["status"]["containerStatuses"][0]
    return found


async def test_a_pod_is_ready_as_long_as_its_probe_says_so(node: Node, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    node.create(FOREVER, container={"readinessProbe": probe(exists(gate), failureThreshold=1)})
    pod = await node.running()
    assert (status(pod)["started"], status(pod)["ready"], is_ready(pod)) == (True, False, False)
    (told,) = [one for one in pod["status"]["conditions"] if one["type"] == "ContainersReady"]
    assert (told["reason"], told["message"]) == ("ContainersNotReady", "containers with unready status: [main]")
    gate.touch()
    assert status(await node.ready())["ready"] is True
    gate.unlink()
    pod = await node.until(lambda pod: not is_ready(pod))
    assert status(pod)["restartCount"] == 0
    assert node.events() == ["Readiness probe failed: "]


async def test_a_container_that_is_starting_is_not_asked_whether_it_is_ready_or_alive(
    node: Node, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    container = {
        "startupProbe": probe(exists(gate), failureThreshold=60),
        "readinessProbe": probe(exists(tmp_path)),
        "livenessProbe": probe(exists(gate), failureThreshold=1),
    }
    node.create(FOREVER, container=container)
    pod = await node.running()
    assert (status(pod)["started"], status(pod)["ready"]) == (False, False)
    await eventually(lambda: node.events())
    gate.touch()
    pod = await node.ready()
    assert (status(pod)["started"], status(pod)["restartCount"]) == (True, 0)
    assert node.events() == ["Startup probe failed: "]


@pytest.mark.parametrize("kind", ["liveness", "startup"])
async def test_a_container_that_fails_is_started_again_also_when_it_then_ends_well(
    node: Node, tmp_path: Path, kind: str
) -> None:
    gate = tmp_path / "gate"
    failing = probe({"exec": {"command": ["sh", "-c", f"echo is down; test -e {gate}"]}}, failureThreshold=2)
    node.create(FOREVER, container={f"{kind}Probe": failing}, restartPolicy="OnFailure")
    pod = await node.until(lambda pod: "containerStatuses" in pod["status"] and status(pod)["restartCount"] == 1)
    gate.touch()
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 0
    assert node.events() == [f"{kind.capitalize()} probe failed: is down\n"]
    assert node.events("Killing") == [f"Container main failed {kind} probe, will be restarted"]
    await node.ready()


async def test_a_container_that_is_never_started_again_ends_its_pod(node: Node, tmp_path: Path) -> None:
    failing = probe(exists(tmp_path / "no"), failureThreshold=1)
    node.create(FOREVER, container={"livenessProbe": failing})
    assert terminated(await node.end())["exitCode"] == 0
    assert node.events("Killing") == ["Container main failed liveness probe"]


async def test_a_probe_can_leave_a_container_less_time_than_its_pod(node: Node, tmp_path: Path) -> None:
    failing = probe(exists(tmp_path / "no"), failureThreshold=1, terminationGracePeriodSeconds=1)
    node.create("trap '' TERM; while :; do sleep 0.02; done", container={"livenessProbe": failing})
    assert terminated(await node.end())["exitCode"] == 137


async def test_an_initial_delay_counts_from_the_start(node: Node, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    node.create(FOREVER, container={"readinessProbe": probe(exists(tmp_path), initialDelaySeconds=1)})
    await node.running()
    began = loop.time()
    await node.ready()
    assert 0.5 < loop.time() - began < 5


async def test_a_probes_command_sees_what_the_container_sees(node: Node, tmp_path: Path) -> None:
    script = f'echo "$NAME $1 $PWD $HOME" > {tmp_path}/seen; cat /mnt/data/file >> {tmp_path}/seen'
    container = {
        "env": [{"name": "NAME", "value": "a name"}],
        "volumeMounts": [{"name": "data", "mountPath": "/mnt/data"}],
        "readinessProbe": probe({"exec": {"command": ["sh", "-c", script, "sh", "$(NAME)"]}}),
    }
    node.create(f"echo text > /mnt/data/file; {FOREVER}", container=container, volumes=[{"name": "data"}])
    await node.ready()
    words, text = (tmp_path / "seen").read_text().splitlines()
    assert words.startswith("a name $(NAME) ")
    assert words.split()[-1] == words.split()[-2]
    assert text == "text"


async def test_a_command_that_takes_too_long_fails_and_is_ended_with_all_it_started(node: Node, tmp_path: Path) -> None:
    slow = ["sh", "-c", f"setsid sleep 60 & echo $! > {tmp_path}/pid; wait"]
    node.create(FOREVER, container={"readinessProbe": probe({"exec": {"command": slow}}, periodSeconds=60)})
    pid = await eventually(lambda: written_pids(tmp_path / "pid"))
    (message,) = await eventually(lambda: node.events())
    assert message == f'Readiness probe failed: command timed out: "{" ".join(slow)}" timed out after 1s'
    await dead(*pid)


async def test_a_probe_that_cannot_be_carried_out_says_so_and_decides_nothing(node: Node) -> None:
    container = {
        "livenessProbe": probe({"exec": {"command": ["/no/such"]}}, failureThreshold=1),
        "readinessProbe": probe({"tcpSocket": {"port": "http"}}),
    }
    node.create(FOREVER, container=container)
    messages = await eventually(lambda: found if len(found := node.events()) == 2 else None)
    assert sorted(messages) == [
        'Liveness probe errored and resulted in unknown state: exec: "/no/such": no such file or directory',
        'Readiness probe errored and resulted in unknown state: strconv.Atoi: parsing "http": invalid syntax',
    ]
    assert status(await node.running())["restartCount"] == 0


async def test_readiness_is_kept_under_the_next_kubelet_and_looked_at_again(registry: Registry, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    container = {"readinessProbe": probe(exists(gate), failureThreshold=2)}
    async with running(registry, node_kubelet(registry, tmp_path, outage_seconds=30.0), leaves=True) as node:
        node.create(FOREVER, container=container)
        await node.ready()
    gate.unlink()
    async with running(registry, node_kubelet(registry, tmp_path)) as node:
        await eventually(lambda: node.events())
        assert is_ready(node.pod() or {})
        await node.until(lambda pod: not is_ready(pod))
        gate.touch()
        assert status(await node.ready())["restartCount"] == 0


async def test_a_pod_waits_for_the_gates_that_others_open(node: Node) -> None:
    node.create(FOREVER, readinessGates=[{"conditionType": "example.com/gate"}])

    def closed(pod: Object) -> str:
        (condition,) = [one for one in pod["status"].get("conditions", [{}]) if one.get("type", "Ready") == "Ready"]
        return str(condition.get("message", "")) if condition.get("reason") == "ReadinessGatesNotReady" else ""

    def write(value: str) -> None:
        pod = node.pod() or {}
        conditions = [one for one in pod["status"]["conditions"] if one["type"] != "example.com/gate"]
        pod["status"]["conditions"] = [*conditions, {"type": "example.com/gate", "status": value}]
        node.registry.update_status(POD, pod)

    pod = await node.until(closed)
    assert closed(pod) == 'corresponding condition of pod readiness gate "example.com/gate" does not exist.'
    write("False")
    text = 'the status of pod readiness gate "example.com/gate" is not "True", but False'
    await node.until(lambda pod: closed(pod) == text)
    write("True")
    await node.ready()
