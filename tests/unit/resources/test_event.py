from __future__ import annotations

from typing import Any

from airflow_llmtune.resources.event import read_complaints


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


def test_a_long_complaint_is_cut_and_no_complaint_is_none() -> None:
    (line,) = read_complaints([event("x", "m" * 2000)], "x")
    assert len(line) < 700
    assert read_complaints([], "x") == []
