"""What pods tell is shown by the golden files in ``data/pod_status``; here is what they cannot show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_llmtune.resources import pod

JSON = dict[str, Any]
COLLECTOR = "metrics-logger-and-collector"


def ended(message: str, name: str = "training-container", code: int = 0) -> JSON:
    state = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
    return {"status": {"containerStatuses": [{"name": name, "state": state}]}}


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["training-container"], ["training-container"]),
        (["training-container", COLLECTOR], ["training-container", COLLECTOR]),
        ([COLLECTOR, "main"], ["main", COLLECTOR]),
        (["sidecar", "pytorch"], ["pytorch"]),
        (["main", "other"], ["main"]),
    ],
)
def test_the_log_is_read_where_the_training_writes_it(names: list[str], read: list[str]) -> None:
    assert pod.log_containers({"spec": {"containers": [{"name": name} for name in names]}}) == read


def test_the_log_of_an_init_container_that_failed_tells_why() -> None:
    item = {**ended("", "kserve-container"), "spec": {"containers": [{"name": "kserve-container"}]}}
    failed = ended("no such bucket", "storage-initializer", code=1)["status"]["containerStatuses"]
    assert pod.log_containers({**item, "status": {"initContainerStatuses": failed}}) == ["storage-initializer"]


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


def waiting(reason: str, message: str = "", phase: str = "Pending") -> JSON:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}}


@pytest.mark.parametrize(
    "reason",
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"],
)
def test_what_does_not_come_by_itself_hangs(reason: str) -> None:
    assert pod.read_hang(waiting(reason, "why")) == f"container main cannot start ({reason}): why"
    # Another container of the pod may run already.
    assert pod.read_hang(waiting(reason, phase="Running")) is not None


def unscheduled(message: str) -> JSON:
    entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"status": {"phase": "Pending", "conditions": [entry]}}


@pytest.mark.parametrize(
    "item",
    [
        {},
        waiting("ContainerCreating"),
        waiting("CrashLoopBackOff", phase="Running"),
        waiting("ImagePullBackOff", phase="Failed"),
        {**waiting("ImagePullBackOff"), "metadata": {"deletionTimestamp": "2026-11-22T09:00:00Z"}},
        unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
    ],
)
def test_what_may_pass_does_not_hang(item: JSON) -> None:
    assert pod.read_hang(item) is None


def test_a_claim_that_is_not_there_is_made_by_no_autoscaler() -> None:
    text = '0/3 nodes are available: persistentvolumeclaim "data" not found.'
    assert pod.read_hang(unscheduled(text)) == f"no node can take the pod (Unschedulable): {text}"


def test_a_volume_that_is_missing_hangs_a_pod_that_has_not_begun() -> None:
    missing = 'MountVolume.SetUp failed: secret "s3" not found'
    assert (
        pod.read_hang(waiting("ContainerCreating"), missing) == f"a volume cannot be mounted (FailedMount): {missing}"
    )
    assert pod.read_hang({"status": {"phase": "Running"}}, missing) is None


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({}, "is Pending"),
        (waiting("ContainerCreating"), "is Pending (ContainerCreating)"),
        ({"status": {"phase": "Running", "startTime": "2026-11-22T09:00:00Z"}}, "runs since 2026-11-22T09:00:00Z"),
        ({"status": {"phase": "Succeeded"}}, "is Succeeded"),
    ],
)
def test_a_pod_with_which_nothing_is_wrong_is_told_too(item: JSON, told: str) -> None:
    assert pod.read_life(item) == told
