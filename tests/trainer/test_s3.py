"""Model and data from S3 and the adapter to S3, through a real server that speaks its protocol."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from llmtune_trainer import object_store
from llmtune_trainer.result import store
from s3_server import S3


@pytest.fixture
def client(s3: S3) -> Any:
    return boto3.client("s3")


def _upload(client: Any, folder: Path, prefix: str) -> None:
    for file in folder.iterdir():
        client.upload_file(str(file), "llm", f"{prefix}/{file.name}")


def test_a_run_from_s3_to_s3(client: Any, train: Any, model: Path, data: Path) -> None:
    _upload(client, model, "models/tiny")
    _upload(client, data, "data/animals")
    # A folder's mark as consoles make it, and a neighbour whose name begins alike: neither belongs to the data.
    client.put_object(Bucket="llm", Key="data/animals/", Body=b"")
    client.put_object(Bucket="llm", Key="data/animals-old/train.jsonl", Body=b"not json")
    run = train(of="s3://llm/models/tiny", on="s3://llm/data/animals", max_steps=2, output_dir="s3://llm/out/trial-1/")
    assert run.code == 0, run.stderr
    assert run.termination["artifact_uri"] == "s3://llm/out/trial-1"
    found = {item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="out/")["Contents"]}
    assert {"out/trial-1/adapter_model.safetensors", "out/trial-1/result.json"} <= found
    config = json.loads(client.get_object(Bucket="llm", Key="out/trial-1/adapter_config.json")["Body"].read())
    assert config["base_model_name_or_path"] == "s3://llm/models/tiny"


def test_a_second_run_removes_the_files_of_the_first_and_no_others(client: Any, train: Any) -> None:
    output = "s3://llm/out/twice/"
    assert train(max_steps=1, output_dir=output, merge_adapter=True).code == 0
    client.put_object(Bucket="llm", Key="out/twice/notes.txt", Body=b"mine")
    assert train(max_steps=1, output_dir=output, use_peft=False).code == 0
    found = {item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="out/twice/")["Contents"]}
    listed = json.loads(client.get_object(Bucket="llm", Key="out/twice/result.json")["Body"].read())["files"]
    assert found == {f"out/twice/{name}" for name in ("notes.txt", "result.json", *listed)}
    assert {"model.safetensors", "config.json"} <= {*listed}
    assert "adapter_config.json" not in listed


def test_who_may_not_list_removes_the_files_of_the_first_too(s3: Any, client: Any, tmp_path: Path) -> None:
    def put(name: str) -> None:
        store("--output_dir", "s3://llm/out", lambda folder: (folder / name).touch(), {}, tmp_path)

    s3.refusals["GET /llm "] = (403, "AccessDenied")
    put("first")
    put("second")
    s3.refusals.clear()
    found = {item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="out/")["Contents"]}
    assert found == {"out/second", "out/result.json"}


class Killed(BaseException):
    pass


@pytest.fixture
def kill_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have a store end before its nth change of the bucket."""
    connect = object_store.connect

    def arrange(nth: int) -> None:
        changes = itertools.count(1)

        def counted(change: Callable[..., Any]) -> Callable[..., Any]:
            def do(*arguments: Any, **options: Any) -> Any:
                if next(changes) == nth:
                    raise Killed
                return change(*arguments, **options)

            return do

        def counting() -> Any:
            real = connect()
            found = {name: getattr(real, name) for name in dir(real) if not name.startswith("_")}
            changing = {name: counted(found[name]) for name in ("put_object", "upload_file", "delete_object")}
            return SimpleNamespace(**found | changing)

        monkeypatch.setattr(object_store, "connect", counting)

    return arrange


@pytest.mark.parametrize("nth", range(1, 11))
def test_whenever_a_store_is_killed_the_next_removes_what_it_left_and_nothing_of_the_users(
    client: Any, kill_before: Callable[[int], None], tmp_path: Path, nth: int
) -> None:
    def put(*names: str) -> None:
        def save(folder: Path) -> None:
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(f"of {names[0]}", encoding="utf-8")

        store("--output_dir", "s3://llm/out", save, {"of": names[0]}, tmp_path)

    def stored() -> dict[str, str]:
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="out/")["Contents"]]
        read = {key: client.get_object(Bucket="llm", Key=key)["Body"].read().decode() for key in keys}
        return {key.removeprefix("out/"): text for key, text in read.items()}

    put("a", "both", "merged/a")
    client.put_object(Bucket="llm", Key="out/c", Body=b"mine")
    kill_before(nth)
    with pytest.raises(Killed):
        put("b", "both", "merged/b", "c")
    found = stored()
    told = json.loads(found.get("result.json", '{"of": null, "files": []}'))
    assert told["of"] == ("a" if nth < 3 else None if nth < 10 else "b")
    assert all(found[name] == f"of {told['of']}" for name in told["files"])
    kill_before(0)
    put("d", "both")
    # The user's `c` is theirs until there is a complete result with a file of that name.
    assert set(stored()) == {"d", "both", "result.json"} | (set() if told["of"] == "b" else {"c"})


def test_one_object_is_a_data_set_too(client: Any, train: Any, data: Path) -> None:
    client.upload_file(str(data / "train.jsonl"), "llm", "single/rows.jsonl")
    run = train(on="s3://llm/single/rows.jsonl", max_steps=1, eval_fraction=0.25)
    assert run.code == 0, run.stderr
    assert "rows: 36 to train on, 12 to evaluate" in run.stdout


def test_a_run_goes_on_from_a_checkpoint_in_s3_and_never_from_half_of_one(
    client: Any, train: Any, stop_after: Any
) -> None:
    settings = {"max_steps": 8, "save_steps": 2, "output_dir": "s3://llm/resumed"}
    stop_after(4)
    with pytest.raises(SystemExit) as stopped:
        train(**settings)
    assert stopped.value.code == 143
    prefix = "resumed/.checkpoints/checkpoint-"
    found = [item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="resumed/")["Contents"]]
    assert {key.removeprefix(prefix).split("/")[0] for key in found} == {"5"}
    assert f"{prefix}5/checkpoint.json" in found
    for key in found:
        if not key.endswith("checkpoint.json"):
            client.copy_object(Bucket="llm", Key=key.replace("-5/", "-7/"), CopySource={"Bucket": "llm", "Key": key})

    run = train(**settings)
    assert "resumed from step 5\n" in run.stdout
    found = [item["Key"] for item in client.list_objects_v2(Bucket="llm", Prefix="resumed/")["Contents"]]
    assert "resumed/result.json" in found
    assert not [key for key in found if key.startswith(prefix)]
    assert run.metrics["eval_loss"] == pytest.approx(train(max_steps=8).metrics["eval_loss"], rel=1e-6)


def test_the_version_of_data_in_s3_is_told_by_its_etags(client: Any, train: Any, data: Path) -> None:
    def version() -> str:
        return str(train(mode=("evaluate",), on="s3://llm/versions").termination["manifest"]["dataset_version"])

    _upload(client, data, "versions")
    first = version()
    client.put_object(Bucket="llm", Key="versions/eval.jsonl", Body=(data / "eval.jsonl").read_bytes())
    assert version() == first
    client.put_object(Bucket="llm", Key="versions/eval.jsonl", Body=(data / "eval.jsonl").read_bytes() * 2)
    assert version() != first


@pytest.mark.parametrize("place", ["volume", "s3"])
def test_trials_that_share_a_cache_download_and_prepare_once(
    s3: S3, client: Any, train: Any, model: Path, data: Path, tmp_path: Path, place: str
) -> None:
    _upload(client, model, f"cached-{place}/model")
    _upload(client, data, f"cached-{place}/data")
    cache_dir = "s3://llm/cache" if place == "s3" else tmp_path / "cache"

    def trial(rate: float) -> Any:
        s3.requests.clear()
        return train(
            of=f"s3://llm/cached-{place}/model",
            on=f"s3://llm/cached-{place}/data",
            cache_dir=cache_dir,
            cache_max_bytes="1GiB",
            max_steps=1,
            learning_rate=rate,
        )

    first, second = trial(1e-3), trial(1e-4)
    assert first.stdout.count(" is made: ") == 3, first.stdout  # model, data, prepared data
    assert second.code == 0
    assert second.stdout.count(" is fetched: " if place == "s3" else " is there") == 3, second.stdout
    assert [path for path in s3.downloads() if path.startswith(f"/llm/cached-{place}/")] == []
    assert first.termination["manifest"]["evaluation"] == second.termination["manifest"]["evaluation"]


def test_an_adapter_in_s3_is_evaluated(client: Any, train: Any) -> None:
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
    client: Any, train: Any, settings: dict[str, Any], words: list[str]
) -> None:
    run = train(**settings)
    assert run.code == 2
    assert all(word in run.termination["error"] for word in [*words, "Fix:"])


def test_missing_credentials_are_named(client: Any, train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    run = train(on="s3://llm/data")
    assert run.code == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.stderr


def test_an_unreachable_store_is_named(client: Any, train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    run = train(on="s3://llm/data")
    assert run.code == 2
    assert "cannot be reached" in run.stderr
