"""Tuning, training and deploying leave no secret behind, neither when all goes well nor in any of our errors."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import yaml
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import LLMTuneError
from airflow_llmtune.operators.katib import KatibExperimentOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, PyTorchJobOperator, TrainJobOperator
from asset_state import AssetRun, AssetStates
from clients import http_client
from deployments import deploy
from model_image import make_training_and_serving_image
from secret_scan import SecretScan
from task_run import Run
from tasks import LOSS, fine_tune, raw_experiment, raw_train_job, tune
from trainer_image import names_of
from waiting import wait_for

HUB_TOKEN = "hf_pl4nted/Hub+token="
KEY_ID, KEY, SESSION = "AKIApl4ntedKeyId", "pl4nted/S3+key==", "pl4nted/Session+token//"
ENDPOINT_TOKEN = "pl4nted/Endpoint+token"
ODD_TOKEN = "pl4nted-odd-token"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    image = make_training_and_serving_image(tmp_path_factory.mktemp("image"))
    with ControlPlane(images=names_of(image)) as plane:
        yield plane


@pytest.fixture
def kube_config(plane: ControlPlane) -> Any:
    return yaml.safe_load(plane.kubeconfig)


@pytest.fixture
def scan(kube_config: Any) -> SecretScan:
    return SecretScan(
        {
            "Hub token": HUB_TOKEN,
            "key id": KEY_ID,
            "secret key": KEY,
            "session token": SESSION,
            "endpoint token": ENDPOINT_TOKEN,
            "Kubernetes token": kube_config["users"][0]["user"]["token"],
            "odd token": ODD_TOKEN,
        }
    )


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_connection(name: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))

    return set_connection


@pytest.fixture
def keys(connect: Any, kube_config: Any) -> None:
    """Connections that work."""
    extra = {"aws_session_token": SESSION, "region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:1"}
    connect("cluster", conn_type="kubernetes", extra={"kube_config": json.dumps(kube_config)})
    connect("hub", conn_type="http", host="http://127.0.0.1:1", password=HUB_TOKEN)
    connect("store", conn_type="aws", login=KEY_ID, password=KEY, extra=extra)
    connect("models", conn_type="http", password=kube_config["users"][0]["user"]["token"])


CONNECTED = {
    "kubernetes_conn_id": "cluster",
    "config_file": None,
    "hub_conn_id": "hub",
    "aws_conn_id": "store",
    "api_retry_timeout": 0.5,
}
ON_CLUSTER = {name: CONNECTED[name] for name in ("kubernetes_conn_id", "config_file", "api_retry_timeout")}


def evaluate(_: str, **changes: Any) -> EvaluateLLMOperator:
    return EvaluateLLMOperator(task_id="evaluate", model="/models/tiny", dataset="/data", **changes)


class Watched:
    """Runs tasks, and has all that they leave looked at."""

    def __init__(self, scan: SecretScan, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self.scan, self.caplog, self.capfd = scan, caplog, capfd
        # What boto3 and httpx print of their requests at DEBUG is theirs.
        caplog.set_level(logging.INFO)
        for name in ("airflow_llmtune", "kubernetes_asyncio", "airflow"):
            caplog.set_level(logging.DEBUG, name)

    def complete(self, operator: Any) -> Any:
        run = AssetRun(AssetStates())
        row = run.defer(operator).serialize()
        result = run.complete(operator)
        left = {
            "trigger row": row,
            "XCom": [result, run.xcoms],
            "task state": run.memory,
            "rendered fields": {name: getattr(operator, name) for name in operator.template_fields},
        }
        for kind, content in left.items():
            self.scan.look(kind, operator.task_id, content)
        self.look_at_logs()
        return result

    def fail(self, operator: Any) -> BaseException:
        with pytest.raises((LLMTuneError, AirflowFailException)) as caught:
            Run().complete(operator)
        self.scan.look("error", operator.task_id, caught.value)
        self.look_at_logs()
        return caught.value

    def look_at_logs(self) -> None:
        logged = [self.caplog.handler.format(record) for record in self.caplog.records]
        self.scan.look("log", "lines", "\n".join(logged))
        self.scan.look("log", "output", "".join(self.capfd.readouterr()))


@pytest.fixture
def watched(scan: SecretScan, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Watched:
    return Watched(scan, caplog, capfd)


def test_a_tuned_trained_evaluated_and_deployed_model_leaves_no_secret(plane, keys, watched, scan):
    tuned = watched.complete(tune("", output_uri="/models/out", **CONNECTED))
    watched.complete(fine_tune("", hyperparameters=tuned["parameters"], **CONNECTED))
    watched.complete(evaluate("", adapter="/models/final", **CONNECTED))
    watched.complete(deploy("", f"chat-{uuid.uuid4().hex[:6]}", **ON_CLUSTER))
    with http_client(plane.kubeconfig) as http:
        scan.cluster(http)
        secrets = http.get("/api/v1/namespaces/default/secrets").json()["items"]
    assert scan.finds == []
    places = {"object", "pod log", "log", "trigger row", "XCom", "task state", "rendered fields"}
    assert scan.looked_at.keys() >= places
    assert all(scan.looked_at.values())

    # What has them is seen to have them.
    scan.look("secrets", "of the pods", [one for one in secrets if one["metadata"]["name"].endswith("-credentials")])
    assert {name for name in scan.secrets if any(f": {name} (base64" in find for find in scan.finds)} == {
        "Hub token",
        "key id",
        "secret key",
        "session token",
    }


def test_no_process_has_a_secret_on_its_command_line(keys, scan):
    trigger = Run().defer(tune("", trainer_args={"nap": 3}, **CONNECTED))
    wait_for(lambda: any("--nap=3" in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])))
    scan.processes()
    asyncio.run(trigger.wait())
    assert scan.finds == []


def test_a_log_line_with_a_secret_would_be_seen(watched, keys, scan):
    operator = tune("", **CONNECTED)
    operator.log.info("the token is %s", HUB_TOKEN)
    watched.look_at_logs()
    assert any(find.startswith("log ") and "Hub token (plain)" in find for find in scan.finds)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("hub", {"conn_type": "http", "login": HUB_TOKEN}),
        ("hub", {"conn_type": "http", "password": f"{HUB_TOKEN}\n{HUB_TOKEN}"}),
        ("hub", {"conn_type": "http", "password": f"{HUB_TOKEN}é"}),
        ("store", {"conn_type": "aws", "login": KEY_ID}),
        ("store", {"conn_type": "aws", "extra": {"aws_secret_access_key": KEY}}),
        ("store", {"conn_type": "aws", "login": KEY_ID, "password": KEY, "extra": {"endpoint_url": KEY}}),
        ("store", {"conn_type": "aws", "login": KEY_ID, "password": KEY, "extra": {"aws_session_token": "a\n" + KEY}}),
        ("store", {"conn_type": "aws", "port": KEY}),
        ("store", {"conn_type": "aws", "extra": f'{{"aws_session_token": "{SESSION}"'}),
    ],
)
def test_a_wrong_connection(keys, connect, watched, scan, name, fields):
    connect(name, **fields)
    error = watched.fail(tune("", **CONNECTED))
    assert f"`{'hub' if name == 'hub' else 'aws'}_conn_id`='{name}'" in str(error)
    assert scan.finds == []


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"HF_TOKEN": HUB_TOKEN}},
        {"env": f"HF_TOKEN={HUB_TOKEN}"},
        {"env": {"HF_TOKEN": {"secretKeyRef": HUB_TOKEN}}},
        {"env": {"HF_TOKEN": {"value": HUB_TOKEN}}},
        {"model": f"s3://{KEY_ID}:{KEY}@bucket/model"},
        {"dataset": f"https://{HUB_TOKEN}@hub.example/rows"},
        {"output_uri": f"s3://{KEY_ID}:{KEY}@bucket/out"},
        {"trainer_args": {"hub_token": HUB_TOKEN}},
        {"trainer_args": {"hub_token": {"a": [HUB_TOKEN]}}},
        {"image": f" https://me:{KEY}@registry.example/trainer"},
        {"resources_per_trial": {"token": HUB_TOKEN}},
        {"job_options": {"pod_template": {"spec": {"containers": [{"name": "x", "env": {"HF_TOKEN": HUB_TOKEN}}]}}}},
        {
            "job_options": {
                "pod_template": {
                    "spec": {
                        "containers": [{"name": "x", "image": "x", "env": [{"name": "K", "value": HUB_TOKEN}, {}]}]
                    }
                }
            }
        },
        {"algorithm_settings": {"api_key": [HUB_TOKEN]}},
        {"version_options": {"token": HUB_TOKEN}, "skip_if_unchanged": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_wrong_argument_that_holds_a_secret(keys, watched, scan, changes):
    assert "mistake" in str(watched.fail(tune("", **{**CONNECTED, **changes})))
    assert scan.finds == []


ENTRY = {"name": "HF_TOKEN", "value": HUB_TOKEN}


def experiment_with_a_secret() -> Any:
    manifest = raw_experiment(LOSS)
    manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["env"] = [ENTRY]
    return KatibExperimentOperator(task_id="any", experiment=manifest, **ON_CLUSTER)


def train_job_with_a_secret() -> Any:
    manifest = raw_train_job("true")
    manifest["spec"]["trainer"]["env"] = [ENTRY]
    return TrainJobOperator(task_id="any", train_job=manifest, **ON_CLUSTER)


def pytorch_job_with_a_secret() -> Any:
    container = {"name": "pytorch", "image": "busybox", "command": ["true"], "env": [ENTRY]}
    master = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    manifest = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": master}},
    }
    return PyTorchJobOperator(task_id="any", pytorch_job=json.dumps(manifest), **ON_CLUSTER)


@pytest.mark.parametrize("make", [experiment_with_a_secret, train_job_with_a_secret, pytorch_job_with_a_secret])
def test_a_manifest_that_holds_a_secret_is_not_sent(keys, watched, scan, make):
    operator = make()
    error = str(watched.fail(operator))
    assert "env.HF_TOKEN`=*** looks like a secret" in error
    assert scan.finds == []


@pytest.mark.parametrize("code", [401, 403, 422, 500])
@pytest.mark.parametrize("path", ["/experiments", "/secrets/"])
def test_an_api_server_that_refuses(plane, keys, watched, scan, code, path):
    plane.faults.add(path, method="POST" if path == "/experiments" else "PATCH", code=code, times=1000)
    try:
        watched.fail(tune("", **CONNECTED))
    finally:
        plane.faults.clear()
    assert scan.finds == []


def odd_kube_configs(good: Any, token: str) -> dict[str, Any]:
    """Return connections' extras with a token in them, of which no client can be made or which the server refuses."""

    def config(**changes: Any) -> dict[str, str]:
        return {"kube_config": json.dumps({**good, **changes})}

    def user(credentials: Any) -> dict[str, str]:
        return config(users=[{"name": good["users"][0]["name"], "user": credentials}])

    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/plugin", "args": []}
    cluster = {**good["clusters"][0], "cluster": {"server": f"http://me:{token}@127.0.0.1:1"}}
    return {
        "wrong token": user({"token": token}),
        "line break": user({"token": f"{token}\n{token}"}),
        "user is a text": user(token),
        "users are a text": config(users=token),
        "no name": config(users=[{"user": {"token": token}}]),
        "no context": {"kube_config": user({"token": token})["kube_config"].replace("current-context", "currant")},
        "cut off": {"kube_config": user({"token": token})["kube_config"][:-3]},
        "a list": {"kube_config": [{"token": token}]},
        "a token": {"kube_config": token},
        "no file": {"kube_config_path": "/nowhere/kubeconfig"},
        "in the address": config(clusters=[cluster]),
        "exec": user({"exec": {**plugin, "env": [{"name": "TOKEN", "value": token}]}}),
    }


@pytest.mark.parametrize("case", odd_kube_configs({"users": [{"name": ""}], "clusters": [{}]}, "").keys())
def test_a_cluster_that_cannot_be_asked(keys, connect, watched, scan, kube_config, case):
    connect("cluster", conn_type="kubernetes", extra=odd_kube_configs(kube_config, ODD_TOKEN)[case])
    error = watched.fail(tune("", **CONNECTED))
    if case not in {"wrong token", "in the address"}:
        assert "No usable Kubernetes configuration in the connection 'cluster'" in str(error)
    assert scan.finds == []


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("dataset", ["s3://bucket/rows", "org/rows"])
@pytest.mark.parametrize("user", ["", f"me:{ODD_TOKEN}@"])
def test_a_source_whose_version_cannot_be_read(keys, connect, watched, scan, nobody, monkeypatch, dataset, user):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    extra = {"endpoint_url": f"http://{user}{nobody}", "region_name": "eu-west-1", "aws_session_token": SESSION}
    connect("store", conn_type="aws", login=KEY_ID, password=KEY, extra=extra)
    connect("hub", conn_type="http", host=f"http://{user}{nobody}", password=HUB_TOKEN)
    settings = {
        **CONNECTED,
        "model": __file__,
        "dataset": dataset,
        "model_asset": Asset("m"),
        "skip_if_unchanged": True,
    }
    assert "did not tell" in str(watched.fail(tune("", **settings)))
    assert scan.finds == []


@pytest.mark.parametrize(
    "password", [ENDPOINT_TOKEN, f"{ENDPOINT_TOKEN}\n", f"{ENDPOINT_TOKEN}\nx", f"{ENDPOINT_TOKEN}é"]
)
def test_a_model_that_refuses_the_token(keys, connect, watched, scan, password, monkeypatch):
    monkeypatch.setattr("airflow_llmtune.operators.endpoint.RETRY_SECONDS", 1.0)
    connect("models", conn_type="http", password=password)
    watched.fail(deploy("", f"chat-{uuid.uuid4().hex[:6]}", **ON_CLUSTER))
    assert scan.finds == []
