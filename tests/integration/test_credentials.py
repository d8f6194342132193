"""Connections reach the pods by a Secret that belongs to the task's object, and goes with it."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException
from moto.server import ThreadedMotoServer

from airflow_llmtune.exceptions import KubernetesApiError, PermissionDeniedError
from airflow_llmtune.operators.trainer import EvaluateLLMOperator
from airflow_llmtune.resources import experiment, job, pod
from airflow_llmtune.resources.companion import SECRET
from asset_state import AssetRun, AssetStates
from tasks import fine_tune, mine, tune
from trainer_image import make_image
from waiting import wait_for

TOKEN, KEY = "hf_SECRET", "s3/SECRET+"
HUB = {"conn_type": "http", "host": "https://hub.example", "password": TOKEN}
STORE = {
    "conn_type": "aws",
    "login": "AKIA1",
    "password": KEY,
    "extra": {"region_name": "eu-west-1", "aws_session_token": "t0ken"},
}
EXPECTED = {
    "HF_TOKEN": TOKEN,
    "HF_ENDPOINT": "https://hub.example",
    "AWS_ACCESS_KEY_ID": "AKIA1",
    "AWS_SECRET_ACCESS_KEY": KEY,
    "AWS_SESSION_TOKEN": "t0ken",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
# The trainer writes down what it was given before it trains.
TELL = '#!/bin/sh\nenv > "$TOLD/$HOSTNAME"\nexec "$0-trainer" "$@"\n'


@pytest.fixture(scope="session")
def trainer_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = make_image(tmp_path_factory.mktemp("telling"))
    for name in ("python", "torchrun"):
        program = image / "bin" / name
        program.rename(program.with_name(f"{name}-trainer"))
        program.write_text(TELL)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return image


@pytest.fixture
def told(tmp_path: Path) -> Path:
    folder = tmp_path / "told"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give Airflow connections, or others of the same names."""

    def set_connections(**connections: dict[str, Any]) -> None:
        for name, fields in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))

    set_connections(hub=HUB, store=STORE)
    return set_connections


def connected(told: Path, **changes: Any) -> dict[str, Any]:
    return {"hub_conn_id": "hub", "aws_conn_id": "store", "env": {"TOLD": str(told)}, **changes}


def evaluate(kubeconfig: str, **changes: Any) -> EvaluateLLMOperator:
    settings = {"model": "/models/tiny", "dataset": "/data", "kubernetes_conn_id": None, "config_file": kubeconfig}
    return EvaluateLLMOperator(task_id="evaluate", **settings, **changes)


def given(told: Path) -> list[dict[str, str]]:
    """Return what each pod was told of the connections."""
    found = []
    for file in sorted(told.iterdir()):
        lines = [line.partition("=") for line in file.read_text().splitlines()]
        found.append({name: value for name, _, value in lines if name.startswith(("HF_", "AWS_"))})
    return found


def secret_of(ask: Any, name: str) -> Any:
    return ask(lambda client: client.find(SECRET, "default", f"{name}-credentials"))


@pytest.mark.parametrize("operator", [tune, fine_tune, evaluate])
def test_the_pods_have_the_credentials_of_the_connections(kubeconfig, run, told, operator):
    run.complete(operator(kubeconfig, **connected(told)))
    assert given(told) == [EXPECTED] * (3 if operator is tune else 1)


@pytest.mark.parametrize("job_kind", ["PyTorchJob", "TrainJob"])
@pytest.mark.parametrize("operator", [tune, fine_tune])
def test_the_pods_of_other_jobs_have_them_too(kubeconfig, run, told, operator, job_kind):
    run.complete(operator(kubeconfig, **connected(told, job_options={"job_kind": job_kind})))
    assert given(told) == [EXPECTED] * (3 if operator is tune else 1)


def test_the_secret_belongs_to_the_experiment_and_no_manifest_holds_a_value(kubeconfig, run, ask, told):
    result = run.complete(tune(kubeconfig, **connected(told)))
    owner = ask(lambda client: client.get(experiment.KIND, "default", result["experiment"]))
    secret = secret_of(ask, result["experiment"])
    assert secret["type"] == "Opaque"
    assert secret["data"].keys() == EXPECTED.keys() - {"HF_ENDPOINT", "AWS_DEFAULT_REGION"}
    assert secret["metadata"]["labels"].items() >= {"dag_id": "dag", "task_id": "task"}.items()
    (reference,) = secret["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("Experiment", owner["metadata"]["uid"])
    text = json.dumps(owner)
    assert f'"{result["experiment"]}-credentials"' in text
    for value in (TOKEN, KEY, "AKIA1", "t0ken"):
        assert value not in text
        assert base64.b64encode(value.encode()).decode() not in text


def test_mistakes_of_both_connections_are_told_at_once_before_anything_is_created(kubeconfig, run, ask, told, connect):
    connect(store={"conn_type": "aws", "login": "AKIA1"})
    given = connected(told, hub_conn_id="hup", max_trial_count=0)
    with pytest.raises(AirflowFailException) as caught:
        run.complete(tune(kubeconfig, **given))
    message = str(caught.value)
    assert "has 3 mistakes" in message
    assert "`hub_conn_id`='hup' is no Airflow connection" in message
    assert "`aws_conn_id`='store' is a connection without password" in message
    assert "AKIA1" not in message
    assert ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))[0] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"hub_conn_id": ["hub"]}, "`hub_conn_id`=[1 item] is not the id of a connection"),
        (
            {"aws_conn_id": "store", "env": {"AWS_SESSION_TOKEN": {"secretKeyRef": {"name": "own", "key": "token"}}}},
            "is also given by `aws_conn_id`. Fix: leave one of the two out",
        ),
    ],
)
def test_a_mistake_of_the_arguments_is_told(kubeconfig, run, given, told):
    with pytest.raises(AirflowFailException) as caught:
        run.complete(fine_tune(kubeconfig, **given))
    assert told in str(caught.value)


def test_a_template_may_say_that_there_is_no_connection(kubeconfig, run, told):
    run.complete(fine_tune(kubeconfig, **connected(told, hub_conn_id="{{ none }}", aws_conn_id="")))
    assert given(told) == [{}]


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of a store that has the rows."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "AKIA1", "aws_secret_access_key": KEY}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="llm")
    client.put_object(Bucket="llm", Key="data/train.jsonl", Body=b"1")
    client.close()
    yield endpoint
    server.stop()


def test_the_worker_reads_versions_with_the_credentials_that_it_gives_the_pods(
    kubeconfig, told, bucket, connect, monkeypatch
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    connect(store={**STORE, "extra": {"region_name": "us-east-1", "endpoint_url": bucket}})
    sources = {"model": __file__, "dataset": "s3://llm/data", "model_asset": Asset("m"), "skip_if_unchanged": True}
    states = AssetStates()
    first = AssetRun(states).complete(fine_tune(kubeconfig, **connected(told, **sources)))
    again = AssetRun(states).complete(fine_tune(kubeconfig, **connected(told, **sources)))
    assert again == {**first, "unchanged": True, "champion": None}
    (pod,) = given(told)
    assert pod["AWS_ENDPOINT_URL"] == bucket


def test_a_secret_that_may_not_be_made_is_told_before_anything_is_created(plane, kubeconfig, run, ask, told):
    message = (
        'secrets "x" is forbidden: User "system:serviceaccount:airflow:worker" cannot patch resource "secrets" in API '
        'group "" in the namespace "default"'
    )
    plane.faults.add("/secrets/", method="PATCH", code=403, message=message)
    with pytest.raises(PermissionDeniedError, match="'worker' of namespace 'airflow' may not patch secrets"):
        run.complete(fine_tune(kubeconfig, **connected(told)))
    assert ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))[0] == []


def test_a_retry_that_adopts_brings_the_rotated_credentials(kubeconfig, run, ask, told, connect):
    trigger = run.defer(fine_tune(kubeconfig, trainer_args={"nap": 3}, **connected(told)))
    connect(hub={**HUB, "password": "hf_NEXT"}, store={**STORE, "extra": {"region_name": "eu-west-1"}})
    run.complete(fine_tune(kubeconfig, trainer_args={"nap": 3}, **connected(told)))
    data = secret_of(ask, trigger.name)["data"]
    assert base64.b64decode(data["HF_TOKEN"]) == b"hf_NEXT"
    assert "AWS_SESSION_TOKEN" not in data
    assert len(ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))[0]) == 1


def test_a_worker_that_died_before_the_secret_is_followed_by_one_that_makes_it(plane, kubeconfig, run, ask, told):
    plane.faults.add(r"/secrets/.*force=true$", method="PATCH", code=422, message="the worker died here")
    with pytest.raises(KubernetesApiError, match="the worker died here"):
        run.defer(fine_tune(kubeconfig, **connected(told)))
    (made,), _ = ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))
    wait_for(lambda: "CreateContainerConfigError" in json.dumps(pods_of(ask, made["metadata"]["name"])))
    result = run.complete(fine_tune(kubeconfig, **connected(told)))
    assert result["job"] == made["metadata"]["name"]
    assert given(told) == [EXPECTED]


def pods_of(ask: Any, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(
        lambda client: client.list_all(pod.KIND, "default", label_selector=job.pod_selector(name))
    )[0]
    return found
