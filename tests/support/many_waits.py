"""A site on which many tasks wait at once: real Airflow, and a control plane in this process that counts requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from demo.airflow_site import AirflowSite
from demo.processes import Processes

DAG_ID, TASK_ID = "waiting", "tune"
DAGS = Path(__file__).parent.parent / "system" / "dags"
PRELOAD = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow_llmtune.hooks.kubeflow",
    "airflow_llmtune.operators.katib",
)
SETTINGS = {
    "CORE__PARALLELISM": "6",
    "CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    "SCHEDULER__MAX_TIS_PER_QUERY": "64",
    # In place of a second, in which all workers may have become idle.
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
}
# The most that one page of Airflow's REST API holds.
PAGE = 100
POLL_SECONDS = 1.0

JSON = dict[str, Any]


@dataclass
class WaitingSite:
    """One run of the DAG, and what can be seen of it from outside."""

    airflow: AirflowSite
    plane: ControlPlane
    processes: Processes
    http: httpx.Client
    run_id: str = ""

    def start(self, waits: int) -> None:
        self.run_id = self.airflow.trigger(DAG_ID, {"waits": waits})

    # What Airflow tells.

    @property
    def _path(self) -> str:
        return f"/dags/{DAG_ID}/dagRuns/{self.run_id}"

    def count(self, state: str) -> int:
        """Return how many of the mapped task's instances are in the state."""
        query = {"task_id": TASK_ID, "state": state, "limit": 1}
        answer = self.airflow.client.get(f"{self._path}/taskInstances", params=query)
        return int(answer.raise_for_status().json()["total_entries"])

    def instances(self) -> list[JSON]:
        """Return all instances of the mapped task, by their index."""
        found: list[JSON] = []
        while True:
            query = {"task_id": TASK_ID, "limit": PAGE, "offset": len(found), "order_by": "map_index"}
            page = self.airflow.client.get(f"{self._path}/taskInstances", params=query).raise_for_status().json()
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def run_state(self) -> str:
        return self.airflow.run_state(DAG_ID, self.run_id)

    def workers_heard(self) -> int:
        """
        Return how many workers the scheduler knows to be done with the mapped task.

        A trigger that fires before that makes Airflow take the task for lost.
        """
        log = self.processes.log_path("airflow-scheduler").read_text(encoding="utf-8", errors="replace")
        return log.count(f"state success for task instance TaskInstanceKey(dag_id='{DAG_ID}', task_id='{TASK_ID}'")

    def trigger_log(self) -> str:
        """Return what the triggerer has logged; a task's last lines are at times in the triggerer's own log."""
        folder = self.airflow.home / "logs" / f"dag_id={DAG_ID}" / f"run_id={self.run_id}" / f"task_id={TASK_ID}"
        paths = [*folder.glob("map_index=*/attempt=*.trigger.*.log"), self.processes.log_path("airflow-triggerer")]
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    # What the operating system tells.

    def workers(self) -> list[str]:
        """Return the titles of all processes that work on a task; LocalExecutor writes its id there."""
        titles = [title_of(process) for process in psutil.Process().children(recursive=True)]
        return [title for title in titles if title.startswith("airflow worker -- ") and "<idle>" not in title]

    def triggerer(self) -> list[psutil.Process]:
        """Return its processes; the one that runs the triggers is a child of the one that was started."""
        (service,) = [one for one in psutil.Process().children() if title_of(one).endswith("airflow triggerer")]
        return [service, *service.children(recursive=True)]

    def connections(self) -> int:
        """Return how many connections the triggerer has to the Kubernetes API."""
        port = httpx.URL(self.plane.url).port
        found = [item for process in self.triggerer() for item in process.net_connections()]
        return sum(item.status == psutil.CONN_ESTABLISHED and item.raddr.port == port for item in found)

    # What the Kubernetes API tells.

    def objects(self, path: str) -> list[JSON]:
        found: list[JSON] = self.http.get(path).raise_for_status().json()["items"]
        return found

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for something that all services are needed for."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.processes.check()
            assert time.monotonic() < deadline, f"it did not happen in {seconds:g} seconds"
            time.sleep(POLL_SECONDS)


@contextmanager
def many_waits(home: Path) -> Iterator[WaitingSite]:
    """Start everything, until Airflow knows the DAG; at the end no process may be left."""
    with (
        Processes(home / "logs") as processes,
        ControlPlane(images={"busybox": Path("/usr")}) as plane,
        http_client(plane.kubeconfig) as http,
        closing(_airflow(home, plane)) as airflow,
    ):
        airflow.start(processes)
        airflow.wait_for_dag(DAG_ID, processes)
        yield WaitingSite(airflow, plane, processes, http)
        family = psutil.Process().children(recursive=True)
    assert [process for process in family if process.is_running()] == []


def _airflow(home: Path, plane: ControlPlane) -> AirflowSite:
    kubeconfig = home / "kubeconfig.yaml"
    plane.write_kubeconfig(kubeconfig)
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubeconfig)}}
    connections = {"kubernetes_default": connection}
    return AirflowSite(home / "airflow", DAGS, connections, settings=SETTINGS, preload=PRELOAD)


def title_of(process: psutil.Process) -> str:
    """Return its command line, or what it has put in place of it; nothing of one that has ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.NoSuchProcess:
        return ""
