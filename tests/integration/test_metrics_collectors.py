"""Every kind of metrics collector, and early stopping: the whole control plane, real processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from objects import EXPERIMENTS, PODS, Object, shell_job, tuning_experiment
from waiting import wait_for

SECONDS = 60
TRIALS = EXPERIMENTS.replace("experiments", "trials")
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "control-plane.md"
DB_MANAGER = {"name": "DB_MANAGER", "value": "katib-db-manager.kubeflow:6789"}

Finished = Callable[[Object], list[Object]]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with ControlPlane() as plane, http_client(plane.kubeconfig) as client:
        yield client


@pytest.fixture
def finished(http: httpx.Client) -> Finished:
    """Runs an Experiment to its end; its Trials, the oldest first."""

    def run(experiment: Object) -> list[Object]:
        name = experiment["metadata"]["name"]
        http.post(EXPERIMENTS, json=experiment).raise_for_status()

        def has_ended() -> bool:
            status = http.get(f"{EXPERIMENTS}/{name}").json().get("status", {})
            return any(
                one["type"] in {"Succeeded", "Failed"} and one["status"] == "True"
                for one in status.get("conditions", ())
            )

        wait_for(has_ended, SECONDS)
        selector = {"labelSelector": f"katib.kubeflow.org/experiment={name}"}
        found: list[Object] = http.get(TRIALS, params=selector).json()["items"]
        return sorted(found, key=lambda trial: (trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]))

    return run


def experiment(name: str, script: str, collector: Object, **spec: Any) -> Object:
    made = tuning_experiment(
        name, shell_job(script), metricsCollectorSpec=collector, **{"maxTrialCount": 2, "parallelTrialCount": 2, **spec}
    )
    container(made)["env"] = [DB_MANAGER]
    return made


def container(made: Object) -> Object:
    found: Object = made["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    return found


def state(trial: Object) -> str:
    return str(trial["status"]["conditions"][-1]["type"])


def losses(trials: list[Object]) -> list[tuple[str, str]]:
    """What each Trial was given and what it has reported."""
    return [
        (trial["spec"]["parameterAssignments"][0]["value"], metric["latest"])
        for trial in trials
        for metric in trial["status"]["observation"]["metrics"]
    ]


def python(tmp_path: Path, text: str) -> str:
    """The command for a program that is written down first."""
    program = tmp_path / "program.py"
    program.write_text(text)
    return f"{sys.executable} {program}"


def snippet() -> str:
    section = GUIDE.read_text().partition("## Push metrics")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def test_a_training_pushes_its_metrics_with_the_guides_snippet(finished: Finished, tmp_path: Path) -> None:
    program = python(tmp_path, f'{snippet()}\nimport sys\nreport("loss", sys.argv[1])\n')
    trials = finished(experiment("push", f"{program} ${{trialParameters.rate}}", {"collector": {"kind": "Push"}}))
    assert [state(trial) for trial in trials] == ["Succeeded", "Succeeded"]
    assert all(given == reported for given, reported in losses(trials))


def test_a_training_that_pushes_nothing_has_no_metrics(finished: Finished) -> None:
    trials = finished(experiment("push-nothing", "true ${trialParameters.rate}", {"collector": {"kind": "Push"}}))
    assert [state(trial) for trial in trials] == ["MetricsUnavailable", "MetricsUnavailable"]


EVENTS = """
import sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

writer = EventFileWriter(sys.argv[1])
for step, value in enumerate([9, float(sys.argv[2])]):
    scalar = Summary.Value(tag="loss", simple_value=value)
    writer.add_event(Event(wall_time=1795338000 + step, step=step, summary=Summary(value=[scalar])))
writer.close()
"""


def test_event_files_are_read(finished: Finished, tmp_path: Path) -> None:
    folder = {"path": "/var/log/events", "kind": "Directory"}
    collector = {"collector": {"kind": "TensorFlowEvent"}, "source": {"fileSystemPath": folder}}
    script = f"{python(tmp_path, EVENTS)} /var/log/events/train ${{trialParameters.rate}}"
    trials = finished(experiment("events", script, collector))
    assert [state(trial) for trial in trials] == ["Succeeded", "Succeeded"]
    assert all(abs(float(given) - float(reported)) < 1e-6 for given, reported in losses(trials))


WAITS_AND_REPORTS = """
import pathlib, sys
file = pathlib.Path(sys.argv[1])
while not (file.exists() and file.read_text().endswith("\\n")):
    time.sleep(0.05)
report("loss", file.read_text().strip())
"""


def test_a_custom_collector_reports_by_itself(finished: Finished, tmp_path: Path) -> None:
    trial_name = {"fieldRef": {"fieldPath": "metadata.labels['katib.kubeflow.org/trial']"}}
    own = {
        "name": "mine",
        "image": "busybox",
        "command": ["sh", "-c", f"{python(tmp_path, snippet() + WAITS_AND_REPORTS)} /metrics/out.txt"],
        "env": [DB_MANAGER, {"name": "KATIB_TRIAL_NAME", "valueFrom": trial_name}],
    }
    source = {"fileSystemPath": {"path": "/metrics/out.txt", "kind": "File"}}
    collector = {"collector": {"kind": "Custom", "customCollector": own}, "source": source}
    trials = finished(experiment("custom", "echo ${trialParameters.rate} > /metrics/out.txt", collector))
    assert [state(trial) for trial in trials] == ["Succeeded", "Succeeded"]
    assert all(given == reported for given, reported in losses(trials))


def test_a_bad_trial_is_stopped_early_and_its_metrics_are_kept(
    finished: Finished, http: httpx.Client, tmp_path: Path
) -> None:
    # The first Trial to come is good; each later one is bad and would run for minutes.
    script = (
        f"mkdir {tmp_path}/first && loss=0.1 nap=0 || {{ loss=0.9; nap=300; }}; "
        "{ echo loss=$loss; echo loss=$loss; echo rate=${trialParameters.rate}; sleep $nap; }"
    )
    settings = [{"name": "min_trials_required", "value": "1"}, {"name": "start_step", "value": "2"}]
    made = experiment(
        "stopping",
        script,
        {"collector": {"kind": "StdOut"}},
        parallelTrialCount=1,
        earlyStopping={"algorithmName": "medianstop", "algorithmSettings": settings},
    )
    made["spec"]["trialTemplate"]["retain"] = True
    good, bad = sorted(finished(made), key=lambda trial: losses([trial])[0][1])
    assert (state(good), state(bad)) == ("Succeeded", "EarlyStopped")
    assert [reported for _, reported in losses([good, bad])] == ["0.1", "0.9"]
    (pod,) = http.get(PODS, params={"labelSelector": f"job-name={bad['metadata']['name']}"}).json()["items"]
    path = f"{PODS}/{pod['metadata']['name']}/log"
    log = wait_for(lambda: http.get(path, params={"container": "metrics-logger-and-collector"}).text, SECONDS)
    assert "Training container is early stopped" in log
    wait_for(lambda: http.get(f"{PODS}/{pod['metadata']['name']}").json()["status"]["phase"] == "Succeeded", SECONDS)
    assert http.get(path, params={"container": "main"}).text.endswith("Training Container was Early Stopped\n")
