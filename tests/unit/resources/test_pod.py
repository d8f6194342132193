"""What pods tell is shown by the golden files in ``data/pod_status``; here is what they cannot show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_llmtune.resources import pod

JSON = dict[str, Any]


def ended(message: str, name: str = "training-container", code: int = 0) -> JSON:
    state = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
    return {"status": {"containerStatuses": [{"name": name, "state": state}]}}


@pytest.mark.parametrize(
    ("names", "container"),
    [
        (["training-container"], "training-container"),
        (["training-container", "metrics-logger-and-collector"], "metrics-logger-and-collector"),
        (["sidecar", "pytorch"], "pytorch"),
        (["main", "other"], "main"),
    ],
)
def test_the_log_is_read_where_the_training_writes_it(names: list[str], container: str) -> None:
    assert pod.log_container({"spec": {"containers": [{"name": name} for name in names]}}) == container


def test_the_log_of_an_init_container_that_failed_tells_why() -> None:
    item = {**ended("", "kserve-container"), "spec": {"containers": [{"name": "kserve-container"}]}}
    failed = ended("no such bucket", "storage-initializer", code=1)["status"]["containerStatuses"]
    assert pod.log_container({**item, "status": {"initContainerStatuses": failed}}) == "storage-initializer"


@pytest.mark.parametrize("message", ["", "done", "[1]", "3", '{"schema_version": 2}', '{"metrics": {}}', "{"])
def test_a_message_that_is_not_the_trainers_is_no_result(message: str) -> None:
    assert pod.read_training_result(ended(message)) is None


@pytest.mark.parametrize("obj", [{}, {"status": {}}, {"status": {"containerStatuses": []}}])
def test_a_pod_without_statuses_tells_nothing(obj: JSON) -> None:
    assert pod.read_training_result(obj) is None
    assert pod.read_failure(obj) is None


def test_only_finite_metrics_are_read() -> None:
    text = '{"schema_version": 1, "metrics": {"a": 1, "b": NaN, "c": -Infinity, "d": 1e999, "e": "x", "f": 0.5}}'
    result = pod.read_training_result(ended(text, "pytorch"))
    assert result == {"schema_version": 1, "metrics": {"a": 1, "f": 0.5}}
    assert json.dumps(result, allow_nan=False)


def test_the_trainers_own_sentence_explains_the_failure() -> None:
    message = json.dumps({"schema_version": 1, "status": "failed", "error": "`lr` is no number"})
    assert pod.read_failure(ended(message, code=2)) == (
        "container training-container ended with exit code 2 (Error): `lr` is no number"
    )


def test_an_endless_message_is_cut_at_its_start() -> None:
    failure = pod.read_failure(ended("x" * 4000 + " the cause", code=1))
    assert failure is not None
    assert len(failure) < 700
    assert failure.endswith("the cause")
