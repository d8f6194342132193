"""A real Airflow that tunes, trains and deploys, and fails in all ways, keeps every secret to itself."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from demo.airflow_site import AirflowSite
from demo.processes import Processes
from model_image import make_training_and_serving_image
from secret_scan import SecretScan
from tests.support.airflow_site import until
from trainer_image import names_of

DAG_ID = "leak_paths"
DAGS = Path(__file__).parent / "dags"
# The scheduler takes a task for lost whose trigger fires before it has heard of the worker's end.
SETTINGS = {"CORE__PARALLELISM": "4", "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1"}
SUCCEEDS = {"tune", "train", "evaluate", "deploy"}
HUB_TOKEN, SPOILT = "hf_pl4nted/Hub+token=", "pl4nted-spoilt-token"
KEY_ID, KEY, SESSION = "AKIApl4ntedKeyId", "pl4nted/S3+key==", "pl4nted/Session+token//"
STALE, IN_ADDRESS = "pl4nted-stale-token", "pl4nted-address"

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def connections(kube_config: dict[str, Any], nobody: str) -> dict[str, Any]:
    token = kube_config["users"][0]["user"]["token"]
    user = {**kube_config["users"][0], "user": {"token": STALE}}
    s3 = {"aws_session_token": SESSION, "region_name": "eu-west-1"}
    address = {"endpoint_url": f"http://me:{IN_ADDRESS}@{nobody}"}
    inline = {
        "kubernetes_default": kube_config,
        "stale": {**kube_config, "users": [user]},
        "broken": {**kube_config, "users": STALE},
    }
    return {
        **{
            name: {"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(config)}}
            for name, config in inline.items()
        },
        "model_endpoint": {"conn_type": "http", "password": token},
        "hub": {"conn_type": "http", "password": HUB_TOKEN},
        "spoilt": {"conn_type": "http", "password": f"{SPOILT}\n{SPOILT}"},
        "half": {"conn_type": "aws", "login": KEY_ID, "extra": s3},
        "unreachable": {"conn_type": "aws", "login": KEY_ID, "password": KEY, "extra": {**s3, **address}},
    }


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    image = make_training_and_serving_image(tmp_path_factory.mktemp("image"))
    with ControlPlane(images=names_of(image)) as plane, http_client(plane.kubeconfig) as http:
        for name in ("forbidden", "refused", "outage"):
            labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
            http.post("/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}}).raise_for_status()
        plane.faults.add("/namespaces/forbidden/secrets/", method="PATCH", code=403, times=1000)
        plane.faults.add("/namespaces/refused/experiments", method="POST", code=422, times=1000)
        plane.faults.add("/namespaces/outage/experiments.*(watch=true|limit=)", method="GET", code=401, times=1000)
        yield plane


@pytest.fixture(scope="module")
def scan(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> SecretScan:
    """Run the DAG to its end, and look at all that it leaves, also while it runs."""
    home = tmp_path_factory.mktemp("site")
    kube_config = yaml.safe_load(plane.kubeconfig)
    # The id of a key is none for Airflow: it stores and shows a connection's login as it is.
    secrets = {
        "Hub token": HUB_TOKEN,
        "spoilt token": SPOILT,
        "secret key": KEY,
        "session token": SESSION,
        "Kubernetes token": kube_config["users"][0]["user"]["token"],
        "stale token": STALE,
        "token in an address": IN_ADDRESS,
    }
    scan = SecretScan(secrets)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        known = connections(kube_config, f"127.0.0.1:{taken.getsockname()[1]}")
        with (
            Processes(home / "services") as processes,
            closing(AirflowSite(home / "airflow", DAGS, known, settings=SETTINGS)) as airflow,
            http_client(plane.kubeconfig) as http,
        ):
            airflow.start(processes)
            # One that Airflow keeps itself, encrypted.
            store = {"connection_id": "store", "conn_type": "aws", "login": KEY_ID, "password": KEY}
            extra = json.dumps({"aws_session_token": SESSION, "region_name": "eu-west-1"})
            airflow.client.post("/connections", json={**store, "extra": extra}).raise_for_status()
            airflow.wait_for_dag(DAG_ID, processes)
            run_id = airflow.trigger(DAG_ID, {})
            until(lambda: scan.processes() or airflow.run_state(DAG_ID, run_id) in {"success", "failed"}, 400)
            states = {item["task_id"]: item["state"] for item in airflow.task_instances(DAG_ID, run_id)}
            assert states == {task: "success" if task in SUCCEEDS else "failed" for task in states}
            scan.cluster(http)
            family = psutil.Process().children(recursive=True)
        scan.files("task log", home / "airflow" / "logs")
        scan.files("service log", home / "services")
        scan.database(home / "airflow" / "airflow.db")
    assert [process for process in family if process.is_running()] == []
    return scan


def test_no_secret_is_left_anywhere(scan: SecretScan) -> None:
    assert scan.finds == [], "\n".join(scan.finds)


def test_the_scan_has_looked_at_everything(scan: SecretScan) -> None:
    assert scan.looked_at.keys() == {"process", "object", "pod log", "task log", "service log", "table"}
    assert min(scan.looked_at.values()) > 0
