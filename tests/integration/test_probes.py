"""Servers in pods: several on one port, asked by probes, also when the control plane is killed meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx

from nodes import is_alive, is_ready, written_pids
from objects import DEPLOYMENTS, PODS, Object, deployment, pod
from program import Program
from waiting import wait_for

SERVICES = PODS.replace("pods", "services")
EVENTS = PODS.replace("pods", "events")


def free_port() -> int:
    """On all addresses of this machine."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


PORT = free_port()


def servers(**container: Any) -> Object:
    """Two that answer with the pod's name, each at its own address."""
    script = f"echo $NAME > index.html; exec python3 -m http.server --bind $IP {PORT}"
    made = deployment("web", "sh", "-c", script, replicas=2)
    (main,) = made["spec"]["template"]["spec"]["containers"]
    fields = {"NAME": "metadata.name", "IP": "status.podIP"}
    main["env"] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    main["ports"] = [{"name": "http", "containerPort": PORT}]
    main["readinessProbe"] = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    main |= container
    return made


def ready_pods(program: Program, count: int = 2) -> dict[str, Object]:
    found = {one["metadata"]["name"]: one for one in program.get(PODS)["items"] if is_ready(one)}
    return found if len(found) == count else {}


def answer(served: Object) -> str:
    return httpx.get(f"http://{served['status']['podIP']}:{PORT}/").text.strip()


def asked_by_name(program: Program) -> str:
    """What a pod is answered that asks the Service."""
    asking = pod(
        "asking",
        "sh",
        "-c",
        "python3 -c 'from urllib.request import *; import os; print(urlopen(os.environ[\"URL\"]).read().decode())'",
    )
    asking["spec"]["containers"][0]["env"] = [{"name": "URL", "value": f"http://web:{PORT}/"}]
    program.create(PODS, asking)
    wait_for(lambda: program.get(f"{PODS}/asking")["status"]["phase"] == "Succeeded", 30)
    return program.http.get(f"{PODS}/asking/log").text.strip()


def test_servers_on_one_port_outlive_the_control_plane(program: Program) -> None:
    program.create(DEPLOYMENTS, servers())
    before = wait_for(lambda: ready_pods(program), 30)
    addresses = {name: pod["status"]["podIP"] for name, pod in before.items()}
    assert len(set(addresses.values())) == 2
    assert {name: answer(pod) for name, pod in before.items()} == {name: name for name in before}
    program.create(
        SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": PORT}]}}
    )
    assert asked_by_name(program) in before
    program.kill()
    assert {name: answer(pod) for name, pod in before.items()} == {name: name for name in before}
    program.restart()
    after = wait_for(lambda: ready_pods(program), 30)
    assert {name: pod["status"]["podIP"] for name, pod in after.items()} == addresses
    assert {pod["status"]["containerStatuses"][0]["restartCount"] for pod in after.values()} == {0}


def test_a_server_that_does_not_answer_any_more_is_started_again(program: Program, tmp_path: Path) -> None:
    probe = {
        "exec": {"command": ["test", "!", "-e", str(tmp_path / "sick")]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    program.create(DEPLOYMENTS, servers(livenessProbe=probe))
    wait_for(lambda: ready_pods(program), 30)
    (tmp_path / "sick").touch()

    def restarts() -> list[int]:
        return [pod["status"]["containerStatuses"][0]["restartCount"] for pod in program.get(PODS)["items"]]

    wait_for(lambda: min(restarts()) >= 1, 30)
    (tmp_path / "sick").unlink()
    pods = wait_for(lambda: ready_pods(program), 60)
    assert {name: answer(pod) for name, pod in pods.items()} == {name: name for name in pods}
    reasons = {one["reason"] for one in program.get(EVENTS)["items"]}
    assert {"Unhealthy", "Killing", "Started"} <= reasons


def test_a_deployments_pod_leaves_when_its_server_has_answered(program: Program, tmp_path: Path) -> None:
    program.create(DEPLOYMENTS, servers(lifecycle={"preStop": {"exec": {"command": ["touch", f"{tmp_path}/asked"]}}}))
    (name, _), *_ = wait_for(lambda: ready_pods(program), 30).items()
    assert program.http.delete(f"{PODS}/{name}").status_code == 200
    wait_for((tmp_path / "asked").exists, 30)
    assert name not in wait_for(lambda: ready_pods(program), 30)


def test_a_probe_that_is_being_carried_out_ends_with_the_control_plane(program: Program, tmp_path: Path) -> None:
    slow = {"exec": {"command": ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"]}, "timeoutSeconds": 60}
    made = pod("probed", "sleep", "60")
    made["spec"]["containers"][0]["readinessProbe"] = slow
    program.create(PODS, made)
    (pid,) = wait_for(lambda: written_pids(tmp_path / "pid"), 30)
    program.kill()
    assert is_alive(pid)
    (tmp_path / "pid").unlink()
    program.restart()
    wait_for(lambda: not is_alive(pid), 30)
    assert program.get(f"{PODS}/probed")["status"]["phase"] == "Running"
    wait_for(lambda: written_pids(tmp_path / "pid"), 30)
