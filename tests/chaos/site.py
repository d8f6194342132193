"""A whole site to break: Airflow's services on PostgreSQL, two triggerers, and the control plane, all as processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from clients import http_client
from demo.airflow_site import SERVICES, AirflowSite
from demo.cluster import Cluster
from demo.processes import Processes
from many_waits import PRELOAD, title_of
from tests.chaos.census import Census
from tests.chaos.postgres import ROOT, postgres

DAGS = Path(__file__).with_name("dags")
CONTROL_PLANE = "control-plane"
# The first one serves the logs of both.
SECOND_TRIGGERER = {"triggerer-2": ["triggerer", "--skip-serve-logs"]}
IDLE_WORKER = "airflow worker -- LocalExecutor: <idle>"
SETTINGS = {
    "CORE__PARALLELISM": "24",
    "CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
    "CORE__MAX_ACTIVE_RUNS_PER_DAG": "64",
    # A site takes minutes to miss what has died. Here it has to be seconds, and still more than a busy machine needs.
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}
POLL_SECONDS = 0.2

JSON = dict[str, Any]


@dataclass
class ChaosSite:
    """
    What runs, and how to look at it.

    :param home: the folder of it all; Airflow's is ``home / "airflow"``.
    :param database: Airflow's, as an URL.
    :param census: all Experiments that there ever were.
    """

    home: Path
    database: str
    processes: Processes
    cluster: Cluster
    airflow: AirflowSite
    http: httpx.Client
    census: Census

    @property
    def triggerers(self) -> list[str]:
        return [f"airflow-{name}" for name in self.airflow.services if name.startswith("triggerer")]

    def family(self, name: str) -> list[psutil.Process]:
        """Return the processes of a service; the control plane's without the containers, which survive it."""
        found = self.processes.family(name)
        return found[:1] if name == CONTROL_PLANE else found

    def restart(self, name: str) -> None:
        """Start a service again that has ended."""
        if name == "airflow-scheduler":
            self._end_idle_workers()
        self.processes.restart(name)

    def _end_idle_workers(self) -> None:
        """End those that wait for work from a scheduler that was killed; the end of its container would."""
        for process in psutil.Process().children():
            if title_of(process) == IDLE_WORKER:
                process.kill()
                process.wait()

    def until_healthy(self) -> None:
        self.airflow.wait_until_healthy(self.processes)
        self.until(lambda: self.http.get("/readyz").is_success, 60, "the control plane's return")

    def objects(self, path: str) -> list[JSON]:
        """Return what the Kubernetes API lists there."""
        found: list[JSON] = self.http.get(path).raise_for_status().json()["items"]
        return found

    def until(self, condition: Callable[[], Any], seconds: float, what: str = "it") -> Any:
        """Wait for something that all services are needed for; return what is true at last."""
        deadline = time.monotonic() + seconds
        while not (found := self._ask(condition)):
            self.processes.check()
            assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} seconds"
            time.sleep(POLL_SECONDS)
        return found

    def _ask(self, condition: Callable[[], Any]) -> Any:
        try:
            return condition()
        except (httpx.TransportError, psutil.NoSuchProcess):
            return None  # Who was asked has just been killed or restarted.


@contextmanager
def chaos_site(home: Path, *dag_ids: str, settings: Mapping[str, str] | None = None) -> Iterator[ChaosSite]:
    """
    Start everything, until Airflow knows the DAGs; at the end no process may be left.

    :param settings: of Airflow, such as ``CORE__PARALLELISM``; they go before ``SETTINGS``.
    """
    cluster = Cluster(home / "cluster", {"busybox": Path("/usr")})
    with Processes(home / "logs") as processes, closing(cluster), postgres(processes) as url:
        cluster.start(processes)
        with (
            http_client(cluster.kubeconfig.read_text()) as http,
            Census(http) as census,
            closing(_airflow(home, cluster, url, settings or {})) as airflow,
        ):
            airflow.start(processes)
            for dag_id in dag_ids:
                airflow.wait_for_dag(dag_id, processes)
            yield ChaosSite(home, url or "sqlite", processes, cluster, airflow, http, census)
            family = psutil.Process().children(recursive=True)
            processes.stop()
    assert [process for process in family if process.is_running()] == []


def _airflow(home: Path, cluster: Cluster, url: str | None, settings: Mapping[str, str]) -> AirflowSite:
    # SQLite bears only one writer.
    services = SERVICES if url is None else SERVICES | SECOND_TRIGGERER
    database = {} if url is None else {"DATABASE__SQL_ALCHEMY_CONN": url}
    all_settings = {**SETTINGS, **settings, **database}
    site = AirflowSite(
        home / "airflow", DAGS, cluster.connections(), settings=all_settings, services=services, preload=PRELOAD
    )
    # The DAGs share modules with the tests.
    site.env |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return site
