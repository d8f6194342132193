"""Reads the demo's objects from the control plane with the stock Kubernetes client, as anybody could."""

from __future__ import annotations

import os
import secrets
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config

from demo.processes import Processes, ServiceError

START_SECONDS = 30.0
GROUP, VERSION = "kubeflow.org", "v1beta1"

JSON = dict[str, Any]


class Cluster:
    """
    The embedded control plane as a process of its own.

    :param home: its folder for state and kubeconfig.
    :param images: container images and the virtual environment that each runs in.
    """

    def __init__(self, home: Path, images: dict[str, Path]) -> None:
        self.home = home
        self.images = images
        self.kubeconfig = home / "kubeconfig.yaml"
        self._api: client.CustomObjectsApi | None = None

    def start(self, processes: Processes) -> None:
        command = [sys.executable, "-m", "airflow_llmtune.controlplane", "--kubeconfig", str(self.kubeconfig)]
        command += ["--state-dir", str(self.home / "state")]
        for image, prefix in self.images.items():
            command += ["--image", f"{image}={prefix}"]
        self.home.mkdir(parents=True, exist_ok=True)
        # A kubeconfig of an earlier run would point to a server that is gone.
        self.kubeconfig.unlink(missing_ok=True)
        processes.start("control-plane", command, os.environ)
        deadline = time.monotonic() + START_SECONDS
        while not self.kubeconfig.exists():
            processes.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"The control plane wrote no kubeconfig within {START_SECONDS:.0f} s")
            time.sleep(0.1)
        self._api = client.CustomObjectsApi(config.new_client_from_config(str(self.kubeconfig)))

    def close(self) -> None:
        if self._api is not None:
            self._api.api_client.rest_client.pool_manager.clear()

    def connections(self) -> dict[str, JSON]:
        """Return the Airflow connections to its API and to the models that it serves, once it runs."""
        return {
            "kubernetes_default": {"conn_type": "kubernetes", "extra": {"kube_config_path": str(self.kubeconfig)}},
            "model_endpoint": {"conn_type": "http", "password": self.token},
        }

    @property
    def token(self) -> str:
        content = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        return str(content["users"][0]["user"]["token"])

    def experiments(self) -> list[JSON]:
        return self._list("experiments")

    def trials(self) -> list[JSON]:
        """Return the Trials, oldest first."""
        return sorted(self._list("trials"), key=lambda trial: (started(trial), trial["metadata"]["name"]))

    def _list(self, plural: str) -> list[JSON]:
        assert self._api is not None, "start() comes first"
        found: list[JSON] = self._api.list_namespaced_custom_object(GROUP, VERSION, "default", plural)["items"]
        return found


def run_name() -> str:
    """Return a name for the files of one run."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def started(trial: JSON) -> str:
    return str((trial.get("status") or {}).get("startTime") or "")


def phase(obj: JSON) -> str:
    """Return the newest condition that holds; "Pending" before there is one."""
    held = [entry["type"] for entry in (obj.get("status") or {}).get("conditions") or [] if entry["status"] == "True"]
    return str(held[-1]) if held else "Pending"


def seconds(trial: JSON) -> float | None:
    """Return for how long a finished trial ran."""
    status = trial.get("status") or {}
    if not status.get("completionTime"):
        return None
    begin, end = (datetime.fromisoformat(status[key]) for key in ("startTime", "completionTime"))
    return (end - begin).total_seconds()


def parameters(trial: JSON) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in trial["spec"]["parameterAssignments"]}


def metric(trial: JSON, name: str) -> float | None:
    for entry in ((trial.get("status") or {}).get("observation") or {}).get("metrics") or []:
        if entry["name"] == name and entry["latest"] != "unavailable":
            return float(entry["latest"])
    return None
