"""The example DAG on a real Airflow (api-server, scheduler, dag-processor, triggerer) with the real trainer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from demo.airflow_site import AirflowSite
from demo.cluster import Cluster, phase
from demo.processes import Processes
from demo.progress import Progress
from demo.report import print_report

ROOT = Path(__file__).parent.parent.parent
DAG_ID = "tune_llm"

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@dataclass
class Site:
    airflow: AirflowSite
    cluster: Cluster
    processes: Processes
    conf: dict[str, Any]

    def run(self, **changes: Any) -> tuple[str, str, Progress]:
        """Run the DAG to its end; return the run's id and state, and what was seen on the way."""
        run_id = self.airflow.trigger(DAG_ID, {**self.conf, **changes})
        progress = Progress(Console(quiet=True), self.airflow, self.cluster, self.processes)
        return run_id, progress.follow(DAG_ID, run_id), progress

    def log(self, run_id: str, task_id: str) -> str:
        return "\n".join(self.airflow.task_log(DAG_ID, run_id, task_id, 1))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    builder = ROOT / "tests" / "trainer" / "tiny_model.py"
    subprocess.run([sys.executable, str(builder), str(home / "model")], check=True, capture_output=True)
    dataset = home / "dataset"
    dataset.mkdir()
    for split, rows in (("train", range(64)), ("eval", range(64, 80))):
        lines = [json.dumps({"prompt": f"What is {n} plus one?", "completion": f"It is {n + 1}."}) for n in rows]
        (dataset / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    conf = {
        "model": str(home / "model"),
        "dataset": str(dataset),
        "output_uri": str(home / "models"),
        "trials": 3,
        "trial_steps": 4,
        "epochs": 2.0,
        "sample_prompt": "What is 3 plus one?",
    }
    cluster = Cluster(home / "cluster", {"airflow-llmtune/trainer": Path(sys.prefix)})
    airflow = AirflowSite(home / "airflow", ROOT / "dags", cluster.kubeconfig)
    with Processes(home / "logs") as processes, closing(cluster), closing(airflow):
        cluster.start(processes)
        airflow.start(processes)
        airflow.wait_for_dag(DAG_ID, processes)
        yield Site(airflow, cluster, processes, conf)
        family = psutil.Process().children(recursive=True)
    assert [process for process in family if process.is_running()] == []


def test_the_example_dag_tunes_and_trains_and_waits_without_a_worker(site):
    run_id, state, progress = site.run()
    assert state == "success", site.log(run_id, "tune") + site.log(run_id, "fine_tune")
    tuned = site.airflow.xcom(DAG_ID, run_id, "tune")
    trained = site.airflow.xcom(DAG_ID, run_id, "fine_tune")

    assert site.airflow.xcom(DAG_ID, run_id, "tune", "parameters") == tuned["parameters"]
    assert tuned["counts"]["succeeded"] == 3
    assert 1e-5 <= tuned["parameters"]["learning_rate"] <= 1e-2
    assert trained["metrics"]["eval_loss"] < trained["metrics"]["base_eval_loss"]
    adapter = Path(trained["artifact_uri"])
    assert (adapter / "adapter_model.safetensors").is_file()
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == tuned["parameters"]["lora_r"]

    for task_id in ("tune", "fine_tune"):
        assert "deferred" in [seen.state for seen in progress.transitions if seen.task_id == task_id]
        assert progress.deferred_seconds(task_id) > 0
        # A worker is seen where there is one, so seeing none while deferred says something.
        assert progress.workers[task_id]
    assert progress.workers_while_deferred == set()

    shown = Console(file=io.StringIO(), width=140)
    print_report(shown, site.cluster, progress, tuned, trained)
    report = shown.file.getvalue()
    assert "3 trials" in report
    assert f"{trained['metrics']['base_eval_loss']:.4f}" in report
    assert tuned["trial"] in report


def test_a_wrong_model_path_fails_the_task_with_that_path_and_nothing_is_left_running(site):
    run_id, state, _ = site.run(model="/no/such/model")
    assert state == "failed"
    log = site.log(run_id, "tune")
    assert "ExperimentFailedError" in log
    assert "/no/such/model" in log
    assert _trainers() == []


def test_a_deferred_task_that_a_user_marks_failed_deletes_its_experiment(site):
    run_id = site.airflow.trigger(DAG_ID, {**site.conf, "trial_steps": 100_000})
    # Airflow starts a trigger a moment after the task was deferred, and tells only a started one of a kill.
    _until(lambda: _tune(site, run_id).get("triggerer_job") is not None and _trainers() != [])
    name = next(item["metadata"]["name"] for item in site.cluster.experiments() if phase(item) == "Running")
    path = f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/tune"
    site.airflow.client.patch(path, json={"new_state": "failed"}).raise_for_status()
    _until(lambda: name not in [item["metadata"]["name"] for item in site.cluster.experiments()])
    _until(lambda: _trainers() == [])


def _tune(site: Site, run_id: str) -> dict[str, Any]:
    instances = site.airflow.task_instances(DAG_ID, run_id)
    return next(instance for instance in instances if instance["task_id"] == "tune")


def _trainers() -> list[psutil.Process]:
    """Return the trainer processes that this test's control plane started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "llmtune_trainer" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
