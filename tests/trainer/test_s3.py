"""Model and data from S3 and the adapter to S3, through a real server that speaks its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="llm")
    return client


def _upload(client: Any, folder: Path, prefix: str) -> None:
    for file in folder.iterdir():
        client.upload_file(str(file), "llm", f"{prefix}/{file.name}")


def test_a_run_from_s3_to_s3(s3: Any, train: Any, model: Path, data: Path) -> None:
    _upload(s3, model, "models/tiny")
    _upload(s3, data, "data/animals")
    # A folder's mark as consoles make it, and a neighbour whose name begins alike: neither belongs to the data.
    s3.put_object(Bucket="llm", Key="data/animals/", Body=b"")
    s3.put_object(Bucket="llm", Key="data/animals-old/train.jsonl", Body=b"not json")
    run = train(of="s3://llm/models/tiny", on="s3://llm/data/animals", max_steps=2, output_dir="s3://llm/out/trial-1/")
    assert run.code == 0, run.stderr
    assert run.termination["artifact_uri"] == "s3://llm/out/trial-1"
    found = {item["Key"] for item in s3.list_objects_v2(Bucket="llm", Prefix="out/")["Contents"]}
    assert {"out/trial-1/adapter_model.safetensors", "out/trial-1/result.json"} <= found
    config = json.loads(s3.get_object(Bucket="llm", Key="out/trial-1/adapter_config.json")["Body"].read())
    assert config["base_model_name_or_path"] == "s3://llm/models/tiny"


def test_one_object_is_a_data_set_too(s3: Any, train: Any, data: Path) -> None:
    s3.upload_file(str(data / "train.jsonl"), "llm", "single/rows.jsonl")
    run = train(on="s3://llm/single/rows.jsonl", max_steps=1, eval_fraction=0.25)
    assert run.code == 0, run.stderr
    assert "rows: 36 to train on, 12 to evaluate" in run.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"on": "s3://llm/no/such/prefix"}, ["--dataset_name", "holds no object"]),
        ({"of": "s3://no-such-bucket/model"}, ["--model_name_or_path", "no such bucket"]),
        ({"output_dir": "s3://no-such-bucket/out"}, ["--output_dir", "no such bucket"]),
        ({"output_dir": "s3://llm"}, ["--output_dir", "names no prefix"]),
    ],
)
def test_a_wrong_address_is_named_before_training(
    s3: Any, train: Any, settings: dict[str, str], words: list[str]
) -> None:
    run = train(**settings)
    assert run.code == 2
    assert all(word in run.termination["error"] for word in [*words, "Fix:"])


def test_missing_credentials_are_named(s3: Any, train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    run = train(on="s3://llm/data")
    assert run.code == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.stderr


def test_an_unreachable_store_is_named(s3: Any, train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    run = train(on="s3://llm/data")
    assert run.code == 2
    assert "cannot be reached" in run.stderr
