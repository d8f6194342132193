"""Starting and stopping the control plane, as an object and as a program."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.grpc_services.db_manager_server import DBManagerServer
from airflow_llmtune.controlplane.plane import CrashError, StartError
from clients import http_client
from objects import EXPERIMENTS, PODS, Object, pod, shell_job, tuning_experiment
from waiting import wait_for


def test_it_serves_the_namespaces_it_was_asked_for() -> None:
    with ControlPlane(namespaces=("team-a", "team-b")) as plane, http_client(plane.kubeconfig) as http:
        items = http.get("/api/v1/namespaces").json()["items"]
        assert [item["metadata"]["name"] for item in items] == ["team-a", "team-b"]
        assert items[0]["metadata"]["labels"]["katib.kubeflow.org/metrics-collector-injection"] == "enabled"
        assert yaml.safe_load(plane.kubeconfig)["contexts"][0]["context"]["namespace"] == "team-a"
        assert plane.requests["list", "namespaces"] == 1


def test_open_watches_can_be_dropped() -> None:
    with ControlPlane() as plane, http_client(plane.kubeconfig) as http:
        with http.stream("GET", f"{PODS}?watch=true&resourceVersion={plane.registry.resource_version}") as watch:
            plane.drop_watches()
            assert list(watch.iter_lines()) == []
        assert http.get(PODS).status_code == 200


def test_the_kubeconfig_is_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("old")
    path.chmod(0o644)
    with ControlPlane() as plane:
        plane.write_kubeconfig(path)
        assert plane.token in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["kubeconfig"]


def test_a_given_state_directory_is_for_the_owner_only_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    with ControlPlane(state_dir=folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.is_dir()


def test_a_relative_state_directory_is_the_same_for_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mounting = pod("writer", "sh", "-c", "echo found > /data/file; ls $TMPDIR/..")
    mounting["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    mounting["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/data"}]
    with ControlPlane(state_dir=Path("state")) as plane, http_client(plane.kubeconfig) as http:
        assert http.post(PODS, json=mounting).status_code == 201
        wait_for(lambda: http.get(f"{PODS}/writer").json()["status"]["phase"] == "Succeeded")
        assert "found" in next(tmp_path.glob("state/pods/*/volumes/v/file")).read_text()
        assert "volumes" in http.get(f"{PODS}/writer/log").text


def test_a_state_directory_that_shells_would_take_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"only letters, digits and .* come through unquoted"):
        ControlPlane(state_dir=tmp_path / "my state").start()
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_stopped_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    async def never(server: DBManagerServer, name: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(DBManagerServer, "start", never)
    plane = ControlPlane()
    with ThreadPoolExecutor() as pool:
        started = pool.submit(plane.start)
        begun.wait()
        plane.stop()
        with pytest.raises(StartError, match="stopped while it was starting"):
            started.result(timeout=10)


def test_stopping_kills_what_pods_run_and_leaves_no_file() -> None:
    marker = "86399.25"
    with ControlPlane() as plane, http_client(plane.kubeconfig) as http:
        assert http.post(PODS, json=pod("sleeper", "sleep", marker)).status_code == 201
        wait_for(lambda: bool(processes(marker)))
    assert processes(marker) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(plane.url.rpartition(":")[2])))
    plane.stop()


def processes(word: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if word in (one.info["cmdline"] or ())]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.com"])
def test_a_host_beyond_this_machine_is_refused(host: str) -> None:
    with pytest.raises(StartError, match=r"is not a loopback address: use 127\.0\.0\.1, ::1 or localhost"):
        ControlPlane(host=host)


def test_a_port_in_use_is_told_and_nothing_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plane = ControlPlane(port=port)
        with pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            plane.start()
        assert "llmtune control plane" not in [thread.name for thread in threading.enumerate()]


def test_a_bad_namespace_or_state_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match='Namespace "No" is invalid'):
        ControlPlane(namespaces=("No",)).start()
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot use the state directory"):
        ControlPlane(state_dir=tmp_path / "file" / "below").start()


@contextmanager
def run_program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, gone when the block ends, also when a check in it failed."""
    command = [sys.executable, "-m", "airflow_llmtune.controlplane", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            yield program
        finally:
            program.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_says_when_it_is_ready_and_ends_with_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    marker = f"86399.{int(number)}"
    with run_program("--kubeconfig", str(kubeconfig), "--namespace", "mine") as program:
        line = program.stdout.readline()
        with http_client(kubeconfig.read_text()) as http:
            ready, models = line.split(", models at ")
            assert ready == f"control plane ready at {str(http.base_url).rstrip('/')}"
            assert re.fullmatch(rf"http://127\.0\.0\.1:\d+, kubeconfig {re.escape(str(kubeconfig))}\n", models)
            http.post(PODS.replace("default", "mine"), json=pod("sleeper", "sleep", marker))
            wait_for(lambda: bool(processes(marker)))
        program.send_signal(number)
        rest, errors = program.communicate(timeout=20)
    assert (program.returncode, rest, errors) == (0, "", "")
    assert processes(marker) == []


@contextmanager
def ready_program(kubeconfig: Path, *arguments: str) -> Iterator[httpx.Client]:
    with run_program("--kubeconfig", str(kubeconfig), *arguments) as program:
        assert program.stdout is not None
        assert "ready" in program.stdout.readline()
        with http_client(kubeconfig.read_text()) as http:
            yield http
        program.terminate()
        program.communicate(timeout=20)


@pytest.mark.parametrize(("arguments", "end"), [(["--strict"], "Succeeded"), ([], "MetricsUnavailable")])
def test_the_program_shows_katibs_faults_when_it_is_told_to(tmp_path: Path, arguments: list[str], end: str) -> None:
    with ready_program(tmp_path / "kubeconfig", *arguments) as http:
        job = shell_job("echo rate=${trialParameters.rate} loss=nan")
        one = tuning_experiment("nan", job, maxTrialCount=1, parallelTrialCount=1)
        http.post(EXPERIMENTS, json=one).raise_for_status()

        def ends() -> list[str]:
            trials = http.get(EXPERIMENTS.replace("experiments", "trials")).json()["items"]
            conditions = [one for trial in trials for one in trial.get("status", {}).get("conditions", ())]
            return [one["type"] for one in conditions if one["type"] in {"Succeeded", "MetricsUnavailable"}]

        assert wait_for(ends, 30) == [end]


def test_the_program_waits_as_long_as_it_is_told_before_a_jobs_next_pod(tmp_path: Path) -> None:
    with ready_program(tmp_path / "kubeconfig", "--job-backoff-seconds", "0.1") as http:
        failing = {**shell_job("exit 1", backoffLimit=1), "metadata": {"name": "failing"}}
        http.post("/apis/batch/v1/namespaces/default/jobs", json=failing).raise_for_status()

        def pods() -> list[Object]:
            items: list[Object] = http.get(PODS).json()["items"]
            return items if len(items) == 2 else []

        first, second = sorted(
            datetime.fromisoformat(one["metadata"]["creationTimestamp"]) for one in wait_for(pods, 30)
        )
        assert (second - first).total_seconds() < 8


def test_paths_may_be_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plane = ControlPlane(state_dir="state", images={"busybox": "prefix"})
    with plane, http_client(plane.kubeconfig) as http:
        assert http.post(PODS, json=pod("one", "sh", "-c", "echo $VIRTUAL_ENV")).status_code == 201
        wait_for(lambda: http.get(f"{PODS}/one").json()["status"]["phase"] == "Succeeded")
        assert http.get(f"{PODS}/one/log").text == f"{tmp_path}/prefix\n"
    assert (tmp_path / "state" / "state.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "error: host '0.0.0.0' is not a loopback address"),
        (
            ["--kubeconfig", "/nowhere/kubeconfig"],
            "error: cannot write the kubeconfig /nowhere/kubeconfig: No such file",
        ),
        (["--image", "x=/nowhere"], "'x=/nowhere' is not NAME=PREFIX with an existing folder"),
        (["--job-backoff-seconds", "soon"], "'soon' is not a number of seconds"),
        (["--job-backoff-seconds", "nan"], "'nan' is not a number of seconds"),
    ],
)
def test_the_program_tells_what_is_wrong_with_its_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    with run_program("--kubeconfig", str(tmp_path / "kubeconfig"), *arguments) as program:
        output, errors = program.communicate(timeout=30)
    assert program.returncode != 0
    assert output == ""
    assert message in errors
    assert "Traceback" not in errors


def test_a_part_that_dies_asks_for_a_stop_and_is_told_then() -> None:
    died = threading.Event()
    plane = ControlPlane(on_crash=died.set)
    plane.start()
    # No input is known to do this; so the part is told to end from within.
    plane._crashed("kubelet", ValueError("odd"))
    assert died.is_set()
    with pytest.raises(CrashError, match=r"kubelet ended while it was running: ValueError\('odd'\)"):
        plane.stop()
