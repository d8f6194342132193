"""Versions of sources, from the disk, from a server that speaks S3, and from one that answers as the Hub does."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from airflow_llmtune.exceptions import SourceVersionError
from airflow_llmtune.hooks import source_version
from airflow_llmtune.hooks.source_version import read_version
from airflow_llmtune.resources.meta import Problems
from airflow_llmtune.resources.source import Source


def source(text: str, **kinds: bool) -> Source:
    problems = Problems()
    found = Source.read("source", text, problems, **kinds)
    problems.raise_if_any("source")
    assert found is not None
    return found


# --- on the disk --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "train.jsonl").write_text("1\n")
    (tmp_path / "data" / "deep" / "eval.jsonl").write_text("2\n")
    return tmp_path / "data"


def changed(folder: Path, change: Any) -> bool:
    before = read_version("dataset", source(str(folder)))
    change()
    return read_version("dataset", source(f"file://{folder}")) != before


def test_the_same_files_have_the_same_version_whenever_they_were_copied(folder):
    assert not changed(folder, lambda: os.utime(folder / "train.jsonl", (1, 1)))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train.jsonl").write_text("3\n"),
        lambda folder: (folder / "more.jsonl").write_text("1\n"),
        lambda folder: (folder / "deep" / "eval.jsonl").unlink(),
        lambda folder: (folder / "train.jsonl").rename(folder / "renamed.jsonl"),
    ],
)
def test_any_change_of_a_folder_is_another_version(folder, change):
    assert changed(folder, lambda: change(folder))


def test_a_single_file_has_a_version_too(folder):
    file = folder / "train.jsonl"
    assert changed(file, lambda: file.write_text("other\n"))


def test_large_files_are_told_apart_by_size_and_time_without_reading_them(folder, monkeypatch):
    monkeypatch.setattr(source_version, "READ_BYTES", 1)
    assert changed(folder, lambda: os.utime(folder / "train.jsonl", (1, 1)))


@pytest.mark.parametrize(
    ("text", "words"), [("/no/such/path", "no such path"), ("pvc://claim/data", "in its pods only")]
)
def test_what_the_worker_cannot_see_has_no_version_and_no_retry_helps(text, words):
    with pytest.raises(SourceVersionError, match=words) as caught:
        read_version("dataset", source(text))
    assert not caught.value.transient


# --- in S3 --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket that only the connection `store` leads to."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    extra = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(connection))
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", **extra, **keys)
    client.create_bucket(Bucket="llm")
    return client


def test_a_prefix_changes_with_its_objects_and_not_with_its_neighbours(s3):
    def version(uri: str = "s3://llm/data") -> str:
        return read_version("dataset", source(uri), aws_conn_id="store")

    s3.put_object(Bucket="llm", Key="data/train.jsonl", Body=b"1")
    first = version()
    s3.put_object(Bucket="llm", Key="data-old/train.jsonl", Body=b"1")
    assert version() == first
    assert version("s3://llm/data/") == first
    s3.put_object(Bucket="llm", Key="data/train.jsonl", Body=b"2")
    second = version()
    s3.put_object(Bucket="llm", Key="data/more.jsonl", Body=b"3")
    assert len({first, second, version()}) == 3
    assert version("s3://llm/data/train.jsonl") != version("s3://llm/data/more.jsonl")
    assert version("s3://llm") != version()


def test_an_endpoint_that_is_no_address_is_told_and_no_retry_helps(monkeypatch):
    extra = {"endpoint_url": "minio:9000", "region_name": "us-east-1"}
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "aws", "extra": extra}))
    with pytest.raises(SourceVersionError, match="S3 cannot be asked: Invalid endpoint: minio:9000") as caught:
        read_version("dataset", source("s3://llm/data"), aws_conn_id="store")
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("uri", "words", "transient"),
    [("s3://llm/nothing", "no object below", False), ("s3://no-such-bucket/data", "NoSuchBucket", True)],
)
def test_an_address_in_s3_without_data_has_no_version(s3, uri, words, transient):
    with pytest.raises(SourceVersionError, match=words) as caught:
        read_version("dataset", source(uri), aws_conn_id="store")
    assert caught.value.transient is transient


# --- on the Hub ---------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers what the Hub's API says of a repository."""

    def do_GET(self) -> None:
        known = {"/api/models/org/base": "1111", "/api/models/org/base/revision/v2": "2222"}
        known["/api/datasets/org/rows"] = "3333"
        sha = known.get(self.path.partition("?")[0])
        allowed = self.headers.get("Authorization") == "Bearer hub-token"
        body = json.dumps({"id": "org/it", "sha": sha} if sha and allowed else {"error": "not found"}).encode()
        self.send_response(200 if sha and allowed else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The trainer's tests, in the same process, forbid the Hub before anything imports its library.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("AIRFLOW_CONN_HUB", json.dumps({"conn_type": "http", "host": address, "password": "hub-token"}))
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("argument", "text", "version"),
    [("model", "org/base", "hub:1111"), ("model", "hf://org/base@v2", "hub:2222"), ("dataset", "org/rows", "hub:3333")],
)
def test_the_version_on_the_hub_is_its_commit(hub, argument, text, version):
    found = source(text, revision=argument == "model")
    assert read_version(argument, found, hub_conn_id="hub") == version


def test_a_hub_that_does_not_tell_may_do_so_later(hub):
    with pytest.raises(SourceVersionError, match="the Hub did not tell") as caught:
        read_version("dataset", source("org/unknown"), hub_conn_id="hub")
    assert caught.value.transient
    assert "hub-token" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_may_be_later(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("AIRFLOW_CONN_HUB", json.dumps({"conn_type": "http", "host": host}))
        with pytest.raises(SourceVersionError, match="the Hub did not tell") as caught:
            read_version("model", source("org/base"), hub_conn_id="hub")
    assert caught.value.transient


def test_a_name_that_the_hub_cannot_know_is_told_and_no_retry_helps(hub):
    with pytest.raises(SourceVersionError, match="org/na--me") as caught:
        read_version("model", source("org/na--me"), hub_conn_id="hub")
    assert not caught.value.transient
