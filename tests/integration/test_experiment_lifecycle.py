"""Experiments from creation to their end: a real client, the whole control plane, real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.apiserver.kinds import (
    EVENT,
    EXPERIMENT,
    JOB,
    POD,
    PYTORCH_JOB,
    SERVICE,
    SUGGESTION,
    TRIAL,
)
from clients import Cluster
from objects import Object, shell_job, tuning_experiment
from waiting import wait_for

SECONDS = 40


class Katib(Cluster):
    """With short ways to what belongs to an Experiment."""

    def until(self, holds: Callable[[], Any]) -> Any:
        return wait_for(holds, SECONDS)

    def finished(self, name: str) -> Object:
        def end() -> Object | None:
            experiment = self.find(EXPERIMENT, name)
            conditions = (experiment or {}).get("status", {}).get("conditions", [])
            true = {one["type"] for one in conditions if one["status"] == "True"}
            return experiment if {"Succeeded", "Failed"} & true else None

        found: Object = self.until(end)
        return found

    def trials(self, experiment: str) -> list[Object]:
        return self.list(TRIAL, f"katib.kubeflow.org/experiment={experiment}")

    def pods(self, experiment: str) -> list[Object]:
        return self.list(POD, f"katib.kubeflow.org/experiment={experiment}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Katib]:
    with ControlPlane(job_backoff_base_seconds=0.05) as plane:
        path = tmp_path_factory.mktemp("kubeconfig") / "config"
        plane.write_kubeconfig(path)
        cluster = Katib(path)
        yield cluster
        cluster.close()


def reasons(obj: Object) -> list[tuple[str, str]]:
    return [(one["type"], one["reason"]) for one in obj["status"]["conditions"]]


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_an_experiment_runs_its_trials_and_finds_the_best(cluster: Katib, algorithm: str) -> None:
    space = {"min": "0.1", "max": "0.9", "step": "0.1"}
    parameters = [{"name": "lr", "parameterType": "double", "feasibleSpace": space}]
    body = tuning_experiment(
        f"plain-{algorithm}",
        # In braces: the redirection to the collector's file is put behind the last command.
        shell_job("{ echo epoch=1 loss=2; echo loss=${trialParameters.rate}; }"),
        algorithm={"algorithmName": algorithm},
        parameters=parameters,
    )
    cluster.create(EXPERIMENT, body)
    status = cluster.finished(f"plain-{algorithm}")["status"]
    assert status["conditions"][-1]["reason"] == "ExperimentMaxTrialsReached"
    assert (status["trials"], status["trialsSucceeded"]) == (4, 4)
    trials = cluster.trials(f"plain-{algorithm}")
    values = [float(one["spec"]["parameterAssignments"][0]["value"]) for one in trials]
    best = status["currentOptimalTrial"]
    assert float(best["parameterAssignments"][0]["value"]) == min(values)
    assert best["observation"]["metrics"] == [
        {"name": "loss", "min": str(min(values)), "max": "2", "latest": str(min(values))}
    ]
    suggestion = cluster.find(SUGGESTION, f"plain-{algorithm}")
    assert suggestion is not None
    assert reasons(suggestion)[-1] == ("Succeeded", "Experiment is succeeded")


def test_jobs_and_pods_of_finished_trials_go_unless_they_are_retained(cluster: Katib) -> None:
    cluster.create(
        EXPERIMENT, tuning_experiment("goes", shell_job("echo loss=1 ${trialParameters.rate}"), maxTrialCount=2)
    )
    cluster.create(
        EXPERIMENT,
        tuning_experiment("stays", shell_job("echo loss=1 ${trialParameters.rate}"), maxTrialCount=2, retain=True),
    )
    cluster.finished("goes")
    cluster.finished("stays")
    cluster.until(lambda: not cluster.pods("goes"))
    (pod, _) = cluster.pods("stays")
    assert cluster.log(pod["metadata"]["name"], container="metrics-logger-and-collector").startswith("loss=1")
    assert cluster.log(pod["metadata"]["name"], container="main") == ""
    assert {one["state"]["terminated"]["exitCode"] for one in pod["status"]["containerStatuses"]} == {0}


def test_reaching_the_goal_ends_the_experiment_early(cluster: Katib) -> None:
    objective = {"type": "maximize", "objectiveMetricName": "acc", "goal": 0.05}
    body = tuning_experiment(
        "goal", shell_job("echo acc=${trialParameters.rate}"), objective=objective, maxTrialCount=12
    )
    cluster.create(EXPERIMENT, body)
    done = cluster.finished("goal")
    assert reasons(done)[-1] == ("Succeeded", "ExperimentGoalReached")
    assert done["status"]["trials"] <= 3


def test_too_many_failed_trials_fail_the_experiment(cluster: Katib) -> None:
    body = tuning_experiment("crash", shell_job("echo boom ${trialParameters.rate}; exit 3"), maxFailedTrialCount=2)
    cluster.create(EXPERIMENT, body)
    done = cluster.finished("crash")
    assert reasons(done)[-1] == ("Failed", "ExperimentFailed")
    assert "bestTrialName" not in done["status"]["currentOptimalTrial"]
    # Another one may have been started beside the two that failed, and still run.
    ended = [trial["status"]["conditions"][-1] for trial in cluster.trials("crash")]
    failed = [condition for condition in ended if condition["type"] == "Failed"]
    assert len(failed) >= 2
    for condition in failed:
        assert condition["reason"] == "TrialFailed. Job reason: BackoffLimitExceeded"
        assert condition["message"] == "Trial has failed. Job message: Job has reached the specified backoff limit"


def test_all_trials_may_fail_and_the_experiment_still_succeeds(cluster: Katib) -> None:
    cluster.create(EXPERIMENT, tuning_experiment("hollow", shell_job("exit ${trialParameters.rate}"), maxTrialCount=2))
    done = cluster.finished("hollow")
    assert reasons(done)[-1] == ("Succeeded", "ExperimentMaxTrialsReached")
    assert done["status"]["currentOptimalTrial"] == {"observation": {}}
    assert done["status"]["trialsFailed"] == 2


@pytest.mark.parametrize("output", ["nothing", "loss=nan"])
def test_missing_metrics_are_found_out_and_stay_within_the_budget(cluster: Katib, output: str) -> None:
    name = f"mute-{output.partition('=')[0]}"
    cluster.create(
        EXPERIMENT, tuning_experiment(name, shell_job(f"echo {output} ${{trialParameters.rate}}"), maxTrialCount=3)
    )
    done = cluster.finished(name)
    assert done["status"]["trialMetricsUnavailable"] == 3
    assert len(cluster.trials(name)) == 3
    assert "bestTrialName" not in done["status"]["currentOptimalTrial"]


def test_a_trial_whose_pods_never_report_does_not_hang(cluster: Katib) -> None:
    body = tuning_experiment("unlabelled", shell_job("echo loss=${trialParameters.rate}"), maxTrialCount=2)
    body["spec"]["trialTemplate"]["primaryPodLabels"] = {"nobody": "has-this"}
    cluster.create(EXPERIMENT, body)
    assert cluster.finished("unlabelled")["status"]["trialMetricsUnavailable"] == 2


def test_failing_pods_are_tried_again_before_the_trial_fails(cluster: Katib) -> None:
    body = tuning_experiment(
        "again", shell_job("exit ${trialParameters.rate}9", backoffLimit=2), maxTrialCount=2, retain=True
    )
    cluster.create(EXPERIMENT, body)
    cluster.finished("again")
    jobs = [cluster.find(JOB, one["metadata"]["name"]) for one in cluster.trials("again")]
    assert [one["status"]["failed"] for one in jobs if one] == [3, 3]


RENDEZVOUS = """
import os, socket, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    with socket.create_server(address) as server:
        total = 0.0
        for _ in range(size - 1):
            connection, _ = server.accept()
            with connection:
                total += float(connection.recv(64))
    print(f"loss={{total}}")
else:
    for _ in range(200):
        try:
            with socket.create_connection(address) as connection:
                connection.sendall(b"{rate}")
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""


def test_masters_and_workers_of_a_pytorch_job_meet_over_loopback(cluster: Katib, tmp_path: Path) -> None:
    # The words of a command are joined for a shell unquoted, so the program lies in a file.
    program = tmp_path / "meet.py"
    program.write_text(RENDEZVOUS.replace("{rate}", "0.25").replace("{{", "{").replace("}}", "}"))
    container = {"name": "pytorch", "image": "x", "command": ["python3", str(program), "${trialParameters.rate}"]}
    replica = {"restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    replicas = {"Master": {"replicas": 1, **replica}, "Worker": {"replicas": 2, **replica}}
    policy = {"cleanPodPolicy": "Running"}
    trial_spec = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"runPolicy": policy, "pytorchReplicaSpecs": replicas},
    }
    body = tuning_experiment("meet", trial_spec, container="pytorch", retain=True, maxTrialCount=2)
    cluster.create(EXPERIMENT, body)
    status = cluster.finished("meet")["status"]
    assert status["trialsSucceeded"] == 2
    assert status["currentOptimalTrial"]["observation"]["metrics"][0]["latest"] == "0.5"
    name = cluster.trials("meet")[0]["metadata"]["name"]
    done = cluster.find(PYTORCH_JOB, name)
    assert done is not None
    assert reasons(done)[-1] == ("Succeeded", "PyTorchJobSucceeded")
    pods = cluster.list(POD, f"katib.kubeflow.org/trial={name}")
    with_sidecar = [one["metadata"]["name"] for one in pods if len(one["spec"]["containers"]) == 2]
    assert with_sidecar == [f"{name}-master-0"]
    assert cluster.find(SERVICE, f"{name}-master-0") is not None


def test_deleting_an_experiment_kills_its_processes_and_removes_all_it_owned(cluster: Katib, tmp_path: Path) -> None:
    script = f"echo $$$$ > {tmp_path}/${{trialParameters.rate}}.pid; sleep 300"
    cluster.create(EXPERIMENT, tuning_experiment("doomed", shell_job(script)))
    files = cluster.until(lambda: len(found := list(tmp_path.glob("*.pid"))) == 2 and found)
    pids = cluster.until(lambda: [int(text) for file in files if (text := file.read_text().strip())])
    cluster.delete(EXPERIMENT, "doomed")
    cluster.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    kinds = (EXPERIMENT, SUGGESTION, TRIAL, JOB, POD)
    cluster.until(
        lambda: (
            not [one for kind in kinds for one in cluster.list(kind) if one["metadata"]["name"].startswith("doomed")]
        )
    )


def test_each_trial_tells_its_story_in_events(cluster: Katib) -> None:
    cluster.create(
        EXPERIMENT, tuning_experiment("story", shell_job("echo loss=${trialParameters.rate}"), maxTrialCount=2)
    )
    cluster.finished("story")
    name = cluster.trials("story")[0]["metadata"]["name"]
    cluster.until(
        lambda: (
            {"JobCreated", "JobSucceeded", "JobDeleted"}
            <= {one["reason"] for one in cluster.list(EVENT) if one["involvedObject"]["name"] == name}
        )
    )


def test_a_trial_costs_little_more_than_its_process(cluster: Katib) -> None:
    body = tuning_experiment(
        "cheap", shell_job("echo loss=${trialParameters.rate}"), parallelTrialCount=1, maxTrialCount=8
    )
    cluster.create(EXPERIMENT, body)
    moments = []
    for count in range(1, 9):
        cluster.until(lambda count=count: len(cluster.trials("cheap")) >= count)
        moments.append(time.monotonic())
    # The goal is 0.3 s for each. Only the quickest counts, because other tests may share the machine.
    assert min(later - earlier for earlier, later in pairwise(moments)) < 1.0


@pytest.mark.parametrize("strict", [False, True])
def test_the_whole_control_plane_shows_katibs_faults_when_asked_to(tmp_path: Path, strict: bool) -> None:
    with ControlPlane(strict=strict) as plane:
        plane.write_kubeconfig(tmp_path / "config")
        cluster = Katib(tmp_path / "config")
        body = tuning_experiment(
            "nan", shell_job("echo loss=nan rate=${trialParameters.rate}"), parallelTrialCount=1, maxTrialCount=1
        )
        cluster.create(EXPERIMENT, body)
        status = cluster.finished("nan")["status"]
        cluster.close()
    assert ("bestTrialName" in status["currentOptimalTrial"]) is strict
    assert (status.get("trialsSucceeded"), status.get("trialMetricsUnavailable")) == (
        (1, None) if strict else (None, 1)
    )
