"""Deployments whose pods are real processes: rolled out, broken, rolled back, and over a restart of the plane."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from objects import DEPLOYMENTS, PODS, REPLICA_SETS, Object, deployment
from program import Program
from waiting import wait_for

MERGE = {"content-type": "application/merge-patch+json"}
CAUTIOUS = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
SECONDS = 30


class Web:
    """A Deployment of processes that sleep; ``version`` is in their command line."""

    def __init__(self, http: httpx.Client, **spec: Any) -> None:
        self.http = http
        self.path = f"{DEPLOYMENTS}/web"
        answer = http.post(DEPLOYMENTS, json=deployment("web", "sh", "-c", _script("v1"), **spec))
        assert answer.status_code == 201, answer.text

    def change(self, version: str, script: str = "", image: str = "busybox", probe: Object | None = None) -> None:
        container = {"name": "main", "image": image, "command": ["sh", "-c", script or _script(version)]}
        container |= {"readinessProbe": probe} if probe else {}
        answer = self.http.patch(
            self.path, json={"spec": {"template": {"spec": {"containers": [container]}}}}, headers=MERGE
        )
        assert answer.status_code == 200, answer.text

    def read(self) -> Object:
        found: Object = self.http.get(self.path).json()
        return found

    def progress(self) -> tuple[str, str]:
        conditions = self.read().get("status", {}).get("conditions", ())
        return next(((one["status"], one["reason"]) for one in conditions if one["type"] == "Progressing"), ("", ""))

    def is_done(self) -> bool:
        found = self.read()
        status = found.get("status", {})
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        is_current = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        return is_current and counts == {found["spec"]["replicas"]} and self.progress()[1] == "NewReplicaSetAvailable"

    def wait(self) -> None:
        wait_for(self.is_done, SECONDS)

    def pods(self) -> list[Object]:
        items = self.http.get(PODS, params={"labelSelector": "app=web"}).json()["items"]
        return [one for one in items if "deletionTimestamp" not in one["metadata"]]

    def events(self) -> set[str]:
        return {one["reason"] for one in self.http.get("/api/v1/namespaces/default/events").json()["items"]}

    def ready(self, version: str) -> set[str]:
        """The uids of the pods of a version that are ready."""
        return {one["metadata"]["uid"] for one in self.running(version) if _is_ready(one)}

    def running(self, version: str) -> list[Object]:
        found = [one for one in self.pods() if version in one["spec"]["containers"][0]["command"][2]]
        return [one for one in found if one["status"]["phase"] == "Running"]


def _script(version: str) -> str:
    return f"trap 'exit 0' TERM; : {version}; while :; do sleep 0.1; done"


def _containers(program: Program, version: str) -> list[psutil.Process]:
    """Their first processes; a child that the shell has just forked still shows the shell's command."""
    found = {}
    for process in program.runtime().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if f": {version}" in " ".join(process.cmdline()):
                found[process.pid] = process.ppid(), process
    return [process for parent, process in found.values() if parent not in found]


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_a_rollout_a_broken_one_and_the_way_back_over_restarts_of_the_plane(program: Program) -> None:
    # A pod without a probe is ready as soon as it runs, also one that ends at once.
    web = Web(program.http, replicas=2, strategy=CAUTIOUS, minReadySeconds=1, progressDeadlineSeconds=4)
    web.wait()
    first = web.ready("v1")
    assert len(first) == 2

    web.change("v2")
    wait_for(lambda: web.ready("v2"), SECONDS)
    program.kill()
    program.restart()
    while not web.is_done():
        assert len(web.ready("v")) >= 2
    second = web.ready("v2")
    assert (len(second), web.ready("v1")) == (2, set())

    # A program that ends at once and is started again, later and later.
    web.change("broken", "exit 3")
    wait_for(lambda: web.progress() == ("False", "ProgressDeadlineExceeded"), SECONDS)
    assert web.ready("v2") == second
    assert web.read()["status"]["unavailableReplicas"] == 1

    program.kill()
    program.restart()
    assert web.progress() == ("False", "ProgressDeadlineExceeded")
    web.change("v2")
    web.wait()
    assert web.ready("v2") == second
    sets = program.get(REPLICA_SETS)["items"]
    notes = [one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for one in sets]
    assert sorted(notes) == ["1", "3", "4"]
    assert sorted(one["spec"]["replicas"] for one in sets) == [0, 0, 2]


def test_old_pods_stay_until_the_probes_of_new_ones_pass(program: Program, tmp_path: Path) -> None:
    web = Web(program.http, replicas=2, strategy=CAUTIOUS)
    web.wait()
    before, gate = web.ready("v1"), tmp_path / "gate"
    web.change("v2", probe={"exec": {"command": ["test", "-e", str(gate)]}, "periodSeconds": 1})
    wait_for(lambda: "Unhealthy" in web.events(), SECONDS)
    assert (web.ready("v1"), web.ready("v2")) == (before, set())
    gate.touch()
    while not web.is_done():
        assert len(web.ready("v")) >= 2
    assert len(web.ready("v2")) == 2


def test_an_image_that_nobody_knows_leaves_the_old_pods_running() -> None:
    with ControlPlane(images={"busybox": Path("/usr")}) as plane, http_client(plane.kubeconfig) as http:
        web = Web(http, replicas=2, progressDeadlineSeconds=2)
        web.wait()
        before = web.ready("v1")
        web.change("v2", image="unknown")
        wait_for(lambda: web.progress() == ("False", "ProgressDeadlineExceeded"), SECONDS)
        (waiting,) = [one for one in web.pods() if not _is_ready(one)]
        assert waiting["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] in {
            "ErrImagePull",
            "ImagePullBackOff",
        }
        assert web.ready("v1") == before
        web.change("v3")
        web.wait()
        assert (len(web.ready("v3")), len(web.pods())) == (2, 2)


def test_a_deployment_takes_its_replica_sets_and_processes_with_it(program: Program) -> None:
    web = Web(program.http, replicas=2)
    web.wait()
    containers = _containers(program, "v1")
    assert len(containers) == 2
    program.http.delete(web.path)
    wait_for(lambda: program.get(REPLICA_SETS)["items"] == [] and web.pods() == [], SECONDS)
    gone, alive = psutil.wait_procs(containers, timeout=SECONDS)
    assert (len(gone), alive) == (2, [])


def test_recreate_starts_nothing_before_the_old_processes_have_ended(program: Program) -> None:
    web = Web(program.http, strategy={"type": "Recreate"})
    web.wait()
    (process,) = _containers(program, "v1")
    web.change("v2")
    wait_for(lambda: web.ready("v2"), SECONDS)
    assert not process.is_running()


def test_its_size_is_read_and_written_as_a_scale(program: Program) -> None:
    path = f"{DEPLOYMENTS}/web/scale"
    web = Web(program.http)
    web.wait()
    scale = program.get(path)
    assert (scale["kind"], scale["status"]) == ("Scale", {"replicas": 1, "selector": "app=web"})
    answer = program.http.put(path, json=scale | {"spec": {"replicas": 2}})
    assert (answer.status_code, answer.json()["spec"]) == (200, {"replicas": 2})
    web.wait()
    assert len(web.ready("v1")) == 2
    assert program.http.put(path, json=scale).status_code == 409
    assert program.http.delete(path).status_code == 405
