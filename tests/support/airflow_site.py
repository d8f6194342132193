"""A whole site for the example DAGs: real Airflow, the control plane, a tiny model and a little data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from demo.airflow_site import AirflowSite
from demo.cluster import Cluster
from demo.processes import Processes
from demo.progress import Progress

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Site:
    home: Path
    airflow: AirflowSite
    cluster: Cluster
    processes: Processes

    @property
    def sources(self) -> dict[str, Any]:
        """Return what all example DAGs take: model, data set and output."""
        names = {"model": "model", "dataset": "dataset", "output_uri": "models"}
        return {parameter: str(self.home / folder) for parameter, folder in names.items()}

    def run(self, dag_id: str, **conf: Any) -> tuple[str, str, Progress]:
        """Run the DAG to its end; return the run's id and state, and what was seen on the way."""
        run_id = self.airflow.trigger(dag_id, conf)
        return run_id, *self.follow(dag_id, run_id)

    def follow(self, dag_id: str, run_id: str) -> tuple[str, Progress]:
        progress = Progress(Console(quiet=True), self.airflow, self.cluster, self.processes)
        return progress.follow(dag_id, run_id), progress

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {item["task_id"]: item["state"] for item in self.airflow.task_instances(dag_id, run_id)}

    def seconds(self, dag_id: str, run_id: str) -> float:
        """Return how long the whole run took."""
        return float(self.airflow.client.get(f"/dags/{dag_id}/dagRuns/{run_id}").json()["duration"])

    def logs(self, dag_id: str, run_id: str) -> str:
        """Return the logs of all tasks that failed, for the message of a test."""
        failed = [item for item in self.airflow.task_instances(dag_id, run_id) if item["state"] == "failed"]
        lines = [self.airflow.task_log(dag_id, run_id, item["task_id"], item["try_number"]) for item in failed]
        return "\n".join(line for log in lines for line in log)


@contextmanager
def running_site(home: Path, dag_id: str) -> Iterator[Site]:
    """Start everything, until Airflow knows the DAG; at the end no process may be left."""
    builder = ROOT / "tests" / "support" / "tiny_model.py"
    subprocess.run([sys.executable, str(builder), str(home / "model")], check=True, capture_output=True)
    write_rows(home / "dataset", offset=1)
    cluster = Cluster(home / "cluster", {"airflow-llmtune/trainer": Path(sys.prefix)})
    with Processes(home / "logs") as processes, closing(cluster):
        cluster.start(processes)
        with closing(AirflowSite(home / "airflow", ROOT / "dags", cluster.connections())) as airflow:
            airflow.start(processes)
            airflow.wait_for_dag(dag_id, processes)
            yield Site(home, airflow, cluster, processes)
        family = psutil.Process().children(recursive=True)
    assert [process for process in family if process.is_running()] == []


def write_rows(folder: Path, *, offset: int) -> None:
    """Write questions about a number and the answers, ``offset`` more."""
    _write(folder, lambda n: f"It is {n + offset}.")


def write_surprising_rows(folder: Path) -> None:
    """Write answers that the tiny model finds less likely than any others, whatever it was tuned to."""
    _write(folder, lambda n: "V" * (8 + n % 4))


def _write(folder: Path, answer: Callable[[int], str]) -> None:
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", range(64)), ("eval", range(64, 80))):
        lines = [json.dumps({"prompt": f"What is {n} plus?", "completion": answer(n)}) for n in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def trainers() -> list[psutil.Process]:
    """Return the trainings that this test's control plane has started; a served model is none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            if "llmtune_trainer" in command and "llmtune_trainer.serve" not in command:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
