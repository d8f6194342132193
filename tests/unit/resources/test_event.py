from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.event import Complaint, owners, read_complaint, read_complaints
from airflow_llmtune.resources.meta import object_name


def event(
    name: str, message: str, time: str = "2026-11-22T09:00:00Z", kind: str = "Job", **fields: Any
) -> dict[str, Any]:
    involved = {"kind": kind, "name": name}
    return {"involvedObject": involved, "reason": "FailedCreate", "message": message, "lastTimestamp": time, **fields}


def test_complaints_are_about_the_object_and_what_was_made_for_it() -> None:
    events = [event("x", "a", kind="TrainJob"), event("x-node-0", "b"), event("xy", "c"), event("other", "d"), {}]
    assert read_complaints(events, "x") == [
        "event of TrainJob x: FailedCreate: a",
        "event of Job x-node-0: FailedCreate: b",
    ]


def test_the_latest_come_last_and_none_comes_twice() -> None:
    events = [
        event("x", "last", time="", eventTime="2026-11-22T09:09:00.000001Z"),
        event("x-a", "same", "2026-11-22T09:03:00Z"),
        event("x-b", "same", "2026-11-22T09:02:00Z"),
        event("x", "first", "2026-11-22T09:00:00Z"),
        event("x", "second", "2026-11-22T09:01:00Z"),
    ]
    assert read_complaints(events, "x") == [
        "event of Job x: FailedCreate: second",
        "event of Job x-a: FailedCreate: same",
        "event of Job x: FailedCreate: last",
    ]


def test_complaints_below_may_be_left_out() -> None:
    events = [event("x", "its own"), event("x-a", "a child's")]
    assert read_complaints(events, "x", below=False) == ["event of Job x: FailedCreate: its own"]


def test_one_cause_of_many_pods_is_one_complaint() -> None:
    text = 'Error creating: pods "x-{}" is forbidden: exceeded quota: gpus, used: {}'
    events = [event("x", text.format(suffix, used)) for suffix, used in (("b2c4d", 7), ("z9xw5", 8))]
    assert read_complaints(events, "x") == [f"event of Job x: FailedCreate: {text.format('z9xw5', 8)}"]


def test_what_passes_at_once_is_no_complaint() -> None:
    conflict = "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest"
    harmless = event("x-0a1b2c3d-1", "Nameserver limits were exceeded", reason="DNSConfigForming")
    for told in ({}, event("", "a"), event("x-0a1b2c3d-1", conflict), harmless):
        assert read_complaint(told) is None
        assert owners(told) == ()


def test_a_complaint_is_one_line_with_its_time() -> None:
    assert str(read_complaint(event("x", " why "))) == "Job x: why (FailedCreate, 2026-11-22T09:00:00Z)"


OURS = object_name("dag", "task", "run", -1, 12)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (OURS, (OURS,)),
        (f"{OURS}-x7k2m9qp", (OURS,)),
        (f"{OURS}-x7k2m9qp-master-0", (OURS,)),
        (f"{OURS}-random-5d9f8b7c6-abcde", (OURS,)),
        (f"{OURS}3", (f"{OURS}3",)),
        # A population's trial has a UUID for a name.
        (f"{OURS}-12345678-1234-4abc-8def-0123456789ab", (OURS, f"{OURS}-12345678-1234")),
        ("train-20261122-12345678-1", ("train-20261122-12345678", "train-20261122-12345678-1")),
        ("coredns-5d9f8b7c6-abcde", ()),
        ("node-1", ()),
    ],
)
def test_the_owner_is_found_by_the_name_of_what_was_made_for_it(name: str, found: tuple[str, ...]) -> None:
    assert owners(event(name, "a")) == found


@pytest.mark.parametrize(
    ("reason", "kind", "starts"),
    [
        ("Failed", "Pod", True),
        ("FailedMount", "Pod", True),
        ("FailedScheduling", "Pod", False),
        ("BackOff", "Pod", False),
        ("Failed", "Trial", False),
        ("FailedCreate", "Job", False),
        ("ReconcileError", "Trial", False),
    ],
)
def test_only_of_some_complaints_a_pod_may_not_start(reason: str, kind: str, starts: bool) -> None:
    assert Complaint(kind, "x", reason, "why").is_of_a_start is starts


def test_a_claim_that_is_not_there_keeps_a_pod_from_its_start() -> None:
    assert Complaint("Pod", "x", "FailedScheduling", 'persistentvolumeclaim "data" not found').is_of_a_start


@pytest.mark.parametrize(
    ("message", "is_missing"),
    [
        ('MountVolume.SetUp failed for volume "s3" : secret "s3" not found', True),
        ('MountVolume.SetUp failed for volume "c" : references non-existent config key: a', True),
        ("MountVolume.SetUp failed for volume: mount failed: exit status 32: Connection timed out", False),
    ],
)
def test_a_volume_is_missing_when_what_it_is_made_of_is(message: str, is_missing: bool) -> None:
    assert (Complaint("Pod", "x", "FailedMount", message).missing_volume is not None) is is_missing
    assert Complaint("Pod", "x", "Failed", message).missing_volume is None


def test_a_complaint_tells_no_password_of_an_address() -> None:
    told = read_complaint(event("x", "cannot pull https://me:hunter2@registry/image"))
    assert told is not None
    assert told.message == "cannot pull https://***@registry/image"


def test_a_long_complaint_is_cut_and_no_complaint_is_none() -> None:
    (line,) = read_complaints([event("x", "m" * 2000)], "x")
    assert len(line) < 700
    assert read_complaints([], "x") == []
