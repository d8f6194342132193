"""The scan for secrets finds what is there."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from secret_scan import SecretScan

# All that encodings change: a slash, a plus, an equals sign, and letters of a neighbour's in base64.
SECRET = "pl4nted/s3cret+with=odd-ends_X"


@pytest.fixture
def scan() -> SecretScan:
    return SecretScan({"token": SECRET})


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        SECRET.encode(),
        {"spec": [{"value": f"Bearer {SECRET}!"}]},
        ("tuple", {SECRET: 1}),
        json.dumps(json.dumps({"a": SECRET})),
        f"https://host/path?{urlencode({'token': SECRET})}",
        *(base64.b64encode(f"{'x' * shift}{SECRET}{'y' * shift}".encode()).decode() for shift in range(7)),
        *(base64.urlsafe_b64encode(f"{'x' * shift}{SECRET}".encode()) for shift in range(3)),
    ],
)
def test_a_secret_is_found_in_any_form(scan, content):
    scan.look("log", "here", content)
    assert scan.finds
    assert all(find.startswith("log here: token (") for find in scan.finds)


@pytest.mark.parametrize("content", ["", b"", SECRET[1:], SECRET[:-1], SECRET.upper(), None, {"a": 1}])
def test_what_is_no_secret_is_not_found(scan, content):
    scan.look("log", "here", content)
    assert scan.finds == []


def test_it_is_found_in_the_causes_of_an_error(scan):
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise RuntimeError("hides it") from error
    except RuntimeError as error:
        scan.look("error", "raised", error)
    assert scan.finds == ["error raised: token (plain)", "error raised: token (in JSON)"]


def test_it_is_found_in_files_and_cells(scan, tmp_path: Path):
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "task.log").write_bytes(b"\xff" + SECRET.encode())
    scan.files("log", tmp_path / "logs")
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        database.execute("CREATE TABLE xcom (key TEXT, value BLOB)")
        database.execute("INSERT INTO xcom VALUES ('a', ?)", [SECRET.encode()])
        database.commit()
    scan.database(tmp_path / "airflow.db")
    assert {find.partition(": ")[0] for find in scan.finds} == {"log deep/task.log", "table xcom.value"}


def test_it_is_found_on_the_command_line_of_a_process(scan):
    with subprocess.Popen([sys.executable, "-c", "input()", SECRET], stdin=subprocess.PIPE) as process:
        scan.processes()
        process.communicate(b"\n")
    assert f"process {process.pid}: token (plain)" in scan.finds


# An API server with a Secret, which may hold it, and a pod that does not; but its log does.
ANSWERS: dict[str, Any] = {
    "/apis": {"groups": []},
    "/api/v1": {
        "resources": [
            {"name": "secrets", "verbs": ["list"]},
            {"name": "pods", "verbs": ["list"]},
            {"name": "pods/log", "verbs": ["get"]},
        ]
    },
    "/api/v1/pods": {"items": [{"metadata": {"namespace": "n", "name": "p"}, "spec": {"containers": [{"name": "c"}]}}]},
    "/api/v1/namespaces/n/pods/p/log": SECRET,
}


def test_it_is_found_in_the_objects_and_logs_of_a_cluster(scan):
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=ANSWERS[request.url.path])

    with httpx.Client(base_url="http://cluster", transport=httpx.MockTransport(answer)) as http:
        scan.cluster(http)
    assert {find.partition(": ")[0] for find in scan.finds} == {"pod log pods/n/p/c"}
    assert scan.looked_at["object"] > 0
