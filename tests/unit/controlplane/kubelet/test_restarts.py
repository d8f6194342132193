"""Containers that end and are started again, and how long they wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet.restart_backoff import (
    Reminder,
    backoff_seconds,
    go_duration,
    is_forgiven,
)
from nodes import Node, node_kubelet, running
from objects import Object


@pytest.mark.parametrize(
    ("crashes", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (7, 300), (10000, 300)]
)
def test_each_wait_is_twice_the_one_before_up_to_five_minutes(crashes: int, seconds: float) -> None:
    assert backoff_seconds(crashes, 10.0) == seconds


@pytest.mark.parametrize(("end", "is_long"), [("09:10:00", False), ("09:10:01", True), ("09:00:00", False)])
def test_a_container_that_ran_for_long_begins_anew(end: str, is_long: bool) -> None:
    times = {"startedAt": "2026-11-22T09:00:00Z", "finishedAt": f"2026-11-22T{end}Z"}
    assert is_forgiven({"terminated": times}) is is_long


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "0.05s"), (10.0, "10s"), (80.0, "1m20s"), (160.0, "2m40s"), (300.0, "5m0s")]
)
def test_waits_are_told_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_what_does_not_change_is_said_again_ever_more_seldom() -> None:
    reminder = Reminder(10.0)
    said = [second for second in range(1000) if reminder.is_due("a", float(second))]
    assert said == [0, 10, 30, 70, 150, 310, 610, 910]
    assert reminder.is_due("b", 1000.0)
    assert not reminder.is_due("b", 1009.0)
    assert reminder.is_due("b", 1010.0)


def container_status(pod: Object) -> Object:
    found: Object = pod["status"].get("containerStatuses", [{"restartCount": 0, "state": {}}])[0]
    return found


async def test_a_container_that_is_always_started_again_may_end_well(registry: Registry, tmp_path: Path) -> None:
    async with running(registry, node_kubelet(registry, tmp_path, restart_backoff_base_seconds=80.0)) as node:
        made = node.create("exit 0", restartPolicy="Always")
        pod = await node.until(
            lambda pod: "waiting" in container_status(pod)["state"] and container_status(pod)["restartCount"]
        )
    status, where = container_status(pod), f"pod=pod_default({made['metadata']['uid']})"
    assert status["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": f"back-off 1m20s restarting failed container=main {where}",
    }
    assert (status["restartCount"], status["ready"], status["started"]) == (1, False, False)
    assert status["lastState"]["terminated"]["reason"] == "Completed"
    assert pod["status"]["phase"] == "Running"
    assert node.events("BackOff") == [f"Back-off restarting failed container main in {where.replace('=', ' ')}"]


async def test_a_container_beyond_its_memory_is_started_again_and_says_why(node: Node) -> None:
    script = "import time; taken = bytearray(200_000_000); time.sleep(60)"
    container: Any = {"command": ["python3", "-c", script], "resources": {"limits": {"memory": "50Mi"}}}
    node.create(container=container, restartPolicy="Always")
    pod = await node.until(lambda pod: container_status(pod)["restartCount"])
    last = container_status(pod)["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137)


async def test_a_pod_that_waits_for_an_image_can_be_deleted(registry: Registry, tmp_path: Path) -> None:
    async with running(registry, node_kubelet(registry, tmp_path, images={})) as node:
        node.create("true", container={"readinessProbe": {"tcpSocket": {"port": 1}}}, restartPolicy="Always")
        pod = await node.until(lambda pod: "ImagePullBackOff" in str(pod["status"].get("containerStatuses")))
        assert (pod["status"]["phase"], container_status(pod)["ready"]) == ("Pending", False)
        registry.delete(POD, "default", "pod")
        await node.gone()
