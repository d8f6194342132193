"""Versions of sources, from the disk, from a server that speaks S3, and from one that answers as the Hub does."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from airflow_llmtune.exceptions import SourceVersionError
from airflow_llmtune.hooks import source_version
from airflow_llmtune.hooks.source_version import read_version
from airflow_llmtune.resources.credentials import Credentials
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.source import Source

NONE = Credentials()


def source(text: str) -> Source:
    problems = Problems()
    found = Source.read("source", text, problems)
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
    before = read_version("dataset", source(str(folder)), NONE)
    change()
    return read_version("dataset", source(f"file://{folder}"), NONE) != before


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
        read_version("dataset", source(text), NONE)
    assert not caught.value.transient


# --- in S3 --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "s3-SECRET"}


def store(endpoint: str) -> Credentials:
    return Credentials(KEYS, {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint})


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket that only the credentials of ``store`` lead to."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="llm")
    return client


def test_a_prefix_changes_with_its_objects_and_not_with_its_neighbours(s3, endpoint):
    def version(uri: str = "s3://llm/data") -> str:
        return read_version("dataset", source(uri), store(endpoint))

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


def test_an_endpoint_that_is_no_address_is_told_and_no_retry_helps():
    with pytest.raises(SourceVersionError, match="S3 cannot be asked: Invalid endpoint: http:///minio:9000") as caught:
        read_version("dataset", source("s3://llm/data"), store("http:///minio:9000"))
    assert not caught.value.transient


def test_a_store_that_cannot_be_reached_is_told_without_the_secret_in_its_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        endpoint = f"http://me:s3-SECRET@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SourceVersionError, match=r"S3 did not tell: .*http://\*\*\*@127\.0\.0\.1") as caught:
            read_version("dataset", source("s3://llm/data"), store(endpoint))
    assert caught.value.transient
    assert "s3-SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("uri", "words", "transient"),
    [("s3://llm/nothing", "no object below", False), ("s3://no-such-bucket/data", "NoSuchBucket", True)],
)
def test_an_address_in_s3_without_data_has_no_version(s3, endpoint, uri, words, transient):
    with pytest.raises(SourceVersionError, match=words) as caught:
        read_version("dataset", source(uri), store(endpoint))
    assert caught.value.transient is transient


# --- on the Hub ---------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers what the Hub's API says of a repository."""

    def do_GET(self) -> None:
        known = {"/api/models/org/base": "1111", "/api/models/org/base/revision/v2": "2222"}
        known |= {"/api/datasets/org/rows": "3333", "/api/datasets/org/rows/revision/v1": "4444"}
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
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Credentials]:
    # The trainer's tests, in the same process, forbid the Hub before anything imports its library.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield Credentials({"HF_TOKEN": "hub-token"}, {"HF_ENDPOINT": address})
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("argument", "text", "version"),
    [
        *(("model", "org/base", "hub:1111"), ("model", "hf://org/base@v2", "hub:2222")),
        *(("dataset", "org/rows", "hub:3333"), ("dataset", "org/rows@v1", "hub:4444")),
    ],
)
def test_the_version_on_the_hub_is_its_commit(hub, argument, text, version):
    found = source(text)
    assert read_version(argument, found, hub) == version


def test_a_hub_that_does_not_tell_may_do_so_later(hub):
    with pytest.raises(SourceVersionError, match="the Hub did not tell") as caught:
        read_version("dataset", source("org/unknown"), hub)
    assert caught.value.transient


def test_a_mirror_that_repeats_the_token_is_not_quoted(hub):
    refused = Credentials({"HF_TOKEN": "hub-SECRET"}, {"HF_ENDPOINT": hub.settings["HF_ENDPOINT"] + "/hub-SECRET"})
    with pytest.raises(SourceVersionError, match=r"the Hub did not tell: .*/\*\*\*/api") as caught:
        read_version("model", source("org/base"), refused)
    assert "hub-SECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_hub_that_cannot_be_reached_may_be_later(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SourceVersionError, match="the Hub did not tell") as caught:
            read_version("model", source("org/base"), Credentials({}, {"HF_ENDPOINT": address}))
    assert caught.value.transient


def test_a_name_that_the_hub_cannot_know_is_told_and_no_retry_helps(hub):
    with pytest.raises(SourceVersionError, match="org/na--me") as caught:
        read_version("model", source("org/na--me"), hub)
    assert not caught.value.transient
