"""Model and data from S3 and the adapter to S3, through a real server that speaks its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from s3_server import S3, running_s3


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with running_s3() as running:
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in server.environment().items():
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


def test_a_second_run_removes_the_files_of_the_first_and_no_others(s3: Any, train: Any) -> None:
    output = "s3://llm/out/twice/"
    assert train(max_steps=1, output_dir=output, merge_adapter=True).code == 0
    s3.put_object(Bucket="llm", Key="out/twice/notes.txt", Body=b"mine")
    assert train(max_steps=1, output_dir=output, use_peft=False).code == 0
    found = {item["Key"] for item in s3.list_objects_v2(Bucket="llm", Prefix="out/twice/")["Contents"]}
    listed = json.loads(s3.get_object(Bucket="llm", Key="out/twice/result.json")["Body"].read())["files"]
    assert found == {f"out/twice/{name}" for name in ("notes.txt", "result.json", *listed)}
    assert {"model.safetensors", "config.json"} <= {*listed}
    assert "adapter_config.json" not in listed


def test_one_object_is_a_data_set_too(s3: Any, train: Any, data: Path) -> None:
    s3.upload_file(str(data / "train.jsonl"), "llm", "single/rows.jsonl")
    run = train(on="s3://llm/single/rows.jsonl", max_steps=1, eval_fraction=0.25)
    assert run.code == 0, run.stderr
    assert "rows: 36 to train on, 12 to evaluate" in run.stdout


def test_a_run_goes_on_from_a_checkpoint_in_s3_and_never_from_half_of_one(s3: Any, train: Any, stop_after: Any) -> None:
    settings = {"max_steps": 8, "save_steps": 2, "output_dir": "s3://llm/resumed"}
    stop_after(4)
    with pytest.raises(SystemExit) as stopped:
        train(**settings)
    assert stopped.value.code == 143
    prefix = "resumed/.checkpoints/checkpoint-"
    found = [item["Key"] for item in s3.list_objects_v2(Bucket="llm", Prefix="resumed/")["Contents"]]
    assert {key.removeprefix(prefix).split("/")[0] for key in found} == {"5"}
    assert f"{prefix}5/checkpoint.json" in found
    for key in found:
        if not key.endswith("checkpoint.json"):
            s3.copy_object(Bucket="llm", Key=key.replace("-5/", "-7/"), CopySource={"Bucket": "llm", "Key": key})

    run = train(**settings)
    assert "resumed from step 5\n" in run.stdout
    found = [item["Key"] for item in s3.list_objects_v2(Bucket="llm", Prefix="resumed/")["Contents"]]
    assert "resumed/result.json" in found
    assert not [key for key in found if key.startswith(prefix)]
    assert run.metrics["eval_loss"] == pytest.approx(train(max_steps=8).metrics["eval_loss"], rel=1e-6)


def test_the_version_of_data_in_s3_is_told_by_its_etags(s3: Any, train: Any, data: Path) -> None:
    def version() -> str:
        return str(train(mode=("evaluate",), on="s3://llm/versions").termination["manifest"]["dataset_version"])

    _upload(s3, data, "versions")
    first = version()
    s3.put_object(Bucket="llm", Key="versions/eval.jsonl", Body=(data / "eval.jsonl").read_bytes())
    assert version() == first
    s3.put_object(Bucket="llm", Key="versions/eval.jsonl", Body=(data / "eval.jsonl").read_bytes() * 2)
    assert version() != first


@pytest.mark.parametrize("place", ["volume", "s3"])
def test_trials_that_share_a_cache_download_and_prepare_once(
    s3: Any, server: S3, train: Any, model: Path, data: Path, tmp_path: Path, place: str
) -> None:
    _upload(s3, model, f"cached-{place}/model")
    _upload(s3, data, f"cached-{place}/data")
    cache_dir = "s3://llm/cache" if place == "s3" else tmp_path / "cache"

    def trial(rate: float) -> Any:
        server.requests.clear()
        return train(
            of=f"s3://llm/cached-{place}/model",
            on=f"s3://llm/cached-{place}/data",
            cache_dir=cache_dir,
            max_steps=1,
            learning_rate=rate,
        )

    first, second = trial(1e-3), trial(1e-4)
    assert first.stdout.count(" is made: ") == 3, first.stdout  # model, data, prepared data
    assert second.code == 0
    assert second.stdout.count(" is fetched: " if place == "s3" else " is there") == 3, second.stdout
    assert [path for path in server.downloads() if path.startswith(f"/llm/cached-{place}/")] == []
    assert first.termination["manifest"]["evaluation"] == second.termination["manifest"]["evaluation"]


def test_an_adapter_in_s3_is_evaluated(s3: Any, train: Any) -> None:
    trained = train(max_steps=2, output_dir="s3://llm/adapters/one")
    judged = train(mode=("evaluate",), adapter="s3://llm/adapters/one")
    assert judged.termination["artifact_uri"] == "s3://llm/adapters/one"
    assert judged.metrics["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": ("evaluate",), "adapter": "s3://llm/no/adapter"}, ["--adapter", "holds no object"]),
        ({"checkpoint_dir": "s3://no-such-bucket/out", "save_steps": 1}, ["--checkpoint_dir", "no such bucket"]),
        ({"on": "s3://llm/no/such/prefix"}, ["--dataset_name", "holds no object"]),
        ({"of": "s3://no-such-bucket/model"}, ["--model_name_or_path", "no such bucket"]),
        ({"output_dir": "s3://no-such-bucket/out"}, ["--output_dir", "no such bucket"]),
        ({"output_dir": "s3://llm"}, ["--output_dir", "names no prefix"]),
    ],
)
def test_a_wrong_address_is_named_before_training(
    s3: Any, train: Any, settings: dict[str, Any], words: list[str]
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
