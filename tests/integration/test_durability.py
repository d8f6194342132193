"""A control plane with a state directory, killed without a warning and started again on it."""

from __future__ import annotations

import base64
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.plane import StartError
from clients import http_client
from objects import CONFIG_MAPS, EXPERIMENTS, Object, shell_job, tuning_experiment
from program import Program, processes
from waiting import wait_for

TRIALS = EXPERIMENTS.replace("experiments", "trials")
SECRETS = CONFIG_MAPS.replace("configmaps", "secrets")
SECONDS = 60


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "finalizers": ["example.com/held"]}, "data": data}


def secret(name: str) -> Object:
    return {"metadata": {"name": name}, "data": {"key": base64.b64encode(b"word").decode()}}


def version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


class Search:
    """An Experiment of quick trials on a program that is killed now and then."""

    def __init__(self, program: Program, parallel: int) -> None:
        self.program = program
        self.marker = f"trial-{uuid4().hex}"
        script = f": {self.marker}; sleep 0.3; echo loss=${{trialParameters.rate}}"
        body = tuning_experiment("search", shell_job(script), maxTrialCount=6, parallelTrialCount=parallel)
        self.uid = program.create(EXPERIMENTS, body)["metadata"]["uid"]
        self.seen: dict[str, str] = {}
        """The uid of each Trial that was shown to a client."""

    def trials(self) -> list[Object]:
        items: list[Object] = self.program.get(TRIALS)["items"]
        self.seen |= {one["metadata"]["name"]: one["metadata"]["uid"] for one in items}
        return items

    def status(self) -> Object:
        found = self.program.get(f"{EXPERIMENTS}/search")
        assert found["metadata"]["uid"] == self.uid
        status: Object = found.get("status", {})
        return status

    def is_completed(self) -> bool:
        true = {one["type"] for one in self.status().get("conditions", ()) if one["status"] == "True"}
        return bool(true & {"Succeeded", "Failed"})


def seen(count: int) -> Callable[[Search], bool]:
    return lambda search: len(search.trials()) >= count


def finished(count: int) -> Callable[[Search], bool]:
    """At least so many Trials have ended."""
    ended = ("trialsSucceeded", "trialsFailed", "trialMetricsUnavailable")
    return lambda search: sum(search.status().get(field, 0) for field in ended) >= count


@pytest.mark.parametrize(
    ("parallel", "moments"),
    [
        pytest.param(2, [seen(0), seen(1), seen(3), seen(6)], id="as trials are made"),
        pytest.param(3, [finished(1), finished(4), Search.is_completed], id="as trials end"),
    ],
)
def test_an_experiment_completes_however_often_the_control_plane_is_killed(
    program: Program, parallel: int, moments: list[Callable[[Search], bool]]
) -> None:
    bystanders = [program.create(CONFIG_MAPS, config_map("a", k="v")), program.create(SECRETS, secret("b"))]
    search = Search(program, parallel)
    for moment in moments:
        wait_for(lambda moment=moment: moment(search), SECONDS)
        before = int(program.get(TRIALS)["metadata"]["resourceVersion"])
        program.kill()
        program.restart()
        assert int(program.get(TRIALS)["metadata"]["resourceVersion"]) >= before
        kept = {one["metadata"]["name"]: one["metadata"]["uid"] for one in search.trials()}
        assert search.seen.items() <= kept.items()
        assert [program.get(f"{CONFIG_MAPS}/a"), program.get(f"{SECRETS}/b")] == bystanders
        assert version(program.create(CONFIG_MAPS, config_map(f"m{before}"))) > before
    wait_for(search.is_completed, SECONDS)
    status = search.status()
    assert status["conditions"][-1]["reason"] == "ExperimentMaxTrialsReached"
    trials = search.trials()
    # A trial that ran when the control plane was killed has either gone on or failed with its pod.
    counted = [status.get(f"trials{how}", 0) for how in ("Succeeded", "Failed", "Killed", "EarlyStopped")]
    assert sum(counted) + status.get("trialMetricsUnavailable", 0) == status["trials"] == len(trials) == 6
    assert status.get("trialsSucceeded", 0) >= 1
    assert {one["metadata"]["name"]: one["metadata"]["uid"] for one in trials} == search.seen
    program.close()
    assert processes(search.marker) == []


@pytest.mark.parametrize("count", [1, 60, 200])
def test_every_object_whose_creation_was_answered_is_there_after_a_kill(program: Program, count: int) -> None:
    answered: list[Object] = []
    enough = threading.Event()

    def create_until_it_dies() -> None:
        with http_client(program.kubeconfig.read_text()) as http:
            for number in range(10_000):
                try:
                    answer = http.post(CONFIG_MAPS, json=config_map(f"c{number}", text="x" * 3000))
                except httpx.TransportError:
                    return
                answered.append(answer.json())
                if len(answered) == count:
                    enough.set()

    creating = threading.Thread(target=create_until_it_dies)
    creating.start()
    assert enough.wait(SECONDS)
    program.kill()
    creating.join()
    program.restart()
    found = program.get(CONFIG_MAPS)
    by_name = {one["metadata"]["name"]: one for one in found["items"]}
    # The list leaves version and kind of its items out, as lists do.
    assert [by_name[one["metadata"]["name"]] | one for one in answered] == answered
    # The last one may have been written and not yet answered.
    assert len(by_name) - len(answered) in {0, 1}
    assert int(found["metadata"]["resourceVersion"]) >= max(map(version, answered))


def test_a_full_disk_refuses_writes_and_is_survived(program: Program) -> None:
    kept = program.create(CONFIG_MAPS, config_map("kept"))
    unlimited = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
    before = program.get(CONFIG_MAPS)
    for request in (
        lambda: program.http.post(CONFIG_MAPS, json=config_map("lost")),
        lambda: program.http.put(f"{CONFIG_MAPS}/kept", json={**kept, "data": {"k": "v"}}),
        lambda: program.http.delete(f"{CONFIG_MAPS}/kept"),
    ):
        answer = request()
        assert answer.status_code == 507
        assert answer.json()["reason"] == "InsufficientStorage"
        assert f"cannot write to its state directory {program.state}: " in answer.json()["message"]
        assert program.get(CONFIG_MAPS) == before
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, unlimited)
    later = program.create(CONFIG_MAPS, config_map("later"))
    program.kill()
    program.restart()
    assert [one["metadata"]["name"] for one in program.get(CONFIG_MAPS)["items"]] == ["kept", "later"]
    assert program.get(f"{CONFIG_MAPS}/later") == later


def test_a_stopped_control_plane_goes_on_for_the_clients_it_had(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ControlPlane(state_dir=state) as plane:
        kubeconfig = plane.kubeconfig
        with http_client(kubeconfig) as http:
            old = http.post(CONFIG_MAPS, json=config_map("a")).json()
            newest = http.post(CONFIG_MAPS, json=config_map("b")).json()
    files = {file.name for file in state.iterdir()}
    assert {"identity.json", "lock", "state.sqlite"} <= files
    assert "state.sqlite-wal" not in files
    with ControlPlane(state_dir=state, namespaces=("default", "more")) as plane:
        assert plane.kubeconfig == kubeconfig
        with http_client(kubeconfig) as http:
            assert http.get(f"{CONFIG_MAPS}/a").json() == old
            assert http.get("/api/v1/namespaces/more").status_code == 200
            watch = f"{CONFIG_MAPS}?watch=true&timeoutSeconds=1&resourceVersion="
            assert '"code":410' in http.get(f"{watch}{version(old)}").text
            current = plane.registry.resource_version
            assert version(newest) < int(current)
            assert http.get(f"{watch}{current}").text == ""


def test_a_watch_that_had_seen_all_goes_on_after_a_kill(program: Program) -> None:
    newest = version(program.create(CONFIG_MAPS, config_map("a")))
    program.kill()
    program.restart()
    path = f"{CONFIG_MAPS}?watch=true&timeoutSeconds=20&resourceVersion={newest}"
    with program.http.stream("GET", path) as watch:
        assert watch.status_code == 200
        lines = watch.iter_lines()
        with http_client(program.kubeconfig.read_text()) as other:
            other.post(CONFIG_MAPS, json=config_map("b"))
        assert '"name":"b"' in next(lines)


def test_a_port_that_is_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    with ControlPlane(state_dir=tmp_path) as plane:
        token, port = plane.token, int(plane.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), ControlPlane(state_dir=tmp_path) as plane:
        assert plane.token == token
        assert int(plane.url.rpartition(":")[2]) != port
        with http_client(plane.kubeconfig) as http:
            assert http.get(CONFIG_MAPS).status_code == 200


def test_a_second_control_plane_on_the_same_directory_is_refused(program: Program) -> None:
    with pytest.raises(
        StartError, match=rf"in use by another control plane \(process {program.pid}\), and two may not"
    ):
        ControlPlane(state_dir=program.state).start()
    assert program.http.get(CONFIG_MAPS).status_code == 200


@pytest.mark.parametrize("name", ["state.sqlite", "identity.json"])
def test_a_damaged_directory_is_told_with_what_to_do(tmp_path: Path, name: str) -> None:
    with ControlPlane(state_dir=tmp_path):
        pass
    (tmp_path / name).write_bytes(b"\xffdamaged")
    with pytest.raises(StartError, match=f"{name}: .*(move it|remove it)"):
        ControlPlane(state_dir=tmp_path).start()
    (tmp_path / name).unlink()
    with ControlPlane(state_dir=tmp_path):
        pass
