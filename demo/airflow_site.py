"""A private Airflow: its own home, database, ports and password; all four services as on a real site."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from demo.processes import Processes, ServiceError

USER = "admin"
START_SECONDS = 240.0
SERVICES: dict[str, Sequence[str]] = {
    name: [name] for name in ("api-server", "scheduler", "dag-processor", "triggerer")
}

JSON = dict[str, Any]


class AirflowSite:
    """
    Starts Airflow on loopback and talks to it over its public REST API.

    :param home: an empty or missing directory; becomes ``AIRFLOW_HOME``.
    :param dags_folder: where the DAGs are.
    :param connections: Airflow connections by their id, as JSON; they may hold secrets.
    :param settings: further settings, such as ``CORE__PARALLELISM``; they go before this class' own.
    :param services: what to start, by name: the arguments of ``airflow``.
    :param preload: modules that each process of Airflow imports as it starts. LocalExecutor forks the scheduler for
        each task: what that has imported, no task imports again, which costs a task more than all else.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        connections: Mapping[str, JSON],
        *,
        settings: Mapping[str, str] | None = None,
        services: Mapping[str, Sequence[str]] = SERVICES,
        preload: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.services = services
        self.preload = preload
        self.password = secrets.token_urlsafe(12)
        self.port, worker_logs, trigger_logs = _free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        own = {
            "CORE__DAGS_FOLDER": str(dags_folder),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            # The examples with a schedule must not start by themselves.
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.port),
            "API__WORKERS": "1",
            "API__BASE_URL": self.url,
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            # A second on a busy laptop must not look like a dead service.
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "120",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            "OPENLINEAGE__DISABLED": "True",
        }
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
            **{f"AIRFLOW__{key}": value for key, value in (own | dict(settings or {})).items()},
            "AIRFLOW_HOME": str(home),
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in connections.items()},
            "PYTHONUNBUFFERED": "1",
        }
        self._client: httpx.Client | None = None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def start(self, processes: Processes) -> None:
        """Make the database and start the services; returns when all of them are healthy."""
        self.home.mkdir(parents=True, exist_ok=True)
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({USER: self.password}))
        if self.preload:
            self._write_local_settings()
        airflow = str(Path(sys.executable).with_name("airflow"))
        processes.run("airflow-db-migrate", [airflow, "db", "migrate"], self.env)
        for name, arguments in self.services.items():
            processes.start(f"airflow-{name}", [airflow, *arguments], self.env)
        self.wait_until_healthy(processes)
        self._client = httpx.Client(base_url=f"{self.url}/api/v2", headers=self._login(), timeout=30)

    def wait_until_healthy(self, processes: Processes) -> None:
        _wait(self._is_healthy, "Airflow's services did not become healthy", processes)

    def wait_for_dag(self, dag_id: str, processes: Processes) -> None:
        """Wait until the dag-processor has read the DAG; a DAG that cannot be imported is an error at once."""

        def known() -> bool:
            for error in self._get("/importErrors")["import_errors"]:
                raise ServiceError(f"{error['filename']} cannot be imported:\n{error['stack_trace']}")
            return self.client.get(f"/dags/{dag_id}").status_code == 200

        _wait(known, f"The DAG {dag_id} did not appear", processes)

    def trigger(self, dag_id: str, conf: JSON, run_id: str | None = None) -> str:
        """Start a run, also of a DAG that is paused, and return its id."""
        self.client.patch(f"/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        body = {"logical_date": None, "conf": conf, "dag_run_id": run_id}
        response = self.client.post(f"/dags/{dag_id}/dagRuns", json=body)
        response.raise_for_status()
        return str(response.json()["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[JSON]:
        found: list[JSON] = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self._get(path, deserialize=True)["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[str]:
        """Return the log's messages, oldest first."""
        content = self._get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}")["content"]
        return [_log_line(entry) for entry in content]

    @property
    def client(self) -> httpx.Client:
        assert self._client is not None, "start() comes first"
        return self._client

    def _get(self, path: str, **query: Any) -> JSON:
        response = self.client.get(path, params=query)
        response.raise_for_status()
        result: JSON = response.json()
        return result

    def _write_local_settings(self) -> None:
        # Airflow imports this file in each of its processes.
        folder = self.home / "config"
        folder.mkdir(exist_ok=True)
        (folder / "airflow_local_settings.py").write_text("".join(f"import {module}\n" for module in self.preload))

    def _login(self) -> dict[str, str]:
        response = httpx.post(f"{self.url}/auth/token", json={"username": USER, "password": self.password}, timeout=30)
        response.raise_for_status()
        return {"Authorization": f"Bearer {response.json()['access_token']}"}

    def _is_healthy(self) -> bool:
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        except (httpx.HTTPError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


def _wait(condition: Any, failure: str, processes: Processes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        processes.check()
        if time.monotonic() > deadline:
            raise ServiceError(f"{failure} within {START_SECONDS:.0f} s; their logs are in {processes.log_dir}")
        time.sleep(0.5)


def _log_line(entry: JSON | str) -> str:
    """Tell one entry of a task's log in one text; an error comes with its exceptions' messages."""
    if isinstance(entry, str):
        return entry
    errors = [f"{detail['exc_type']}: {detail['exc_value']}" for detail in entry.get("error_detail") or []]
    return "\n".join([str(entry.get("event", "")), *errors])


def _free_ports(count: int) -> list[int]:
    # Bound at the same time, so that they differ.
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports
