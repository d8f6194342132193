"""How far a container had got, from the status that an earlier kubelet stored."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.kubelet.adoption import is_lost, is_noted, resumed_record
from objects import Object

FRESH: Object = {"waiting": {"reason": "ContainerCreating"}}
RUNNING: Object = {"running": {"startedAt": "2026-11-22T09:00:00Z"}}
LOOPS: Object = {"waiting": {"reason": "CrashLoopBackOff"}}
MAIN: Object = {"name": "main"}


def ended(code: int) -> Object:
    return {"terminated": {"exitCode": code}}


def pod(**status: Any) -> Object:
    return {"status": {"containerStatuses": [{"name": "main", "restartCount": 0, **status}]}} if status else {}


@pytest.mark.parametrize(
    ("stored", "policy", "running", "state", "restarts", "is_final"),
    [
        (pod(), "Never", None, FRESH, 0, False),
        (pod(), "Never", 0, FRESH, 0, False),
        (pod(state=RUNNING), "Never", 0, RUNNING, 0, False),
        (pod(state=RUNNING, restartCount=2), "Always", 2, RUNNING, 2, False),
        (pod(state=ended(0)), "Never", None, ended(0), 0, True),
        (pod(state=ended(0)), "OnFailure", None, ended(0), 0, True),
        (pod(state=ended(1)), "OnFailure", None, ended(1), 0, False),
        (pod(state=ended(0)), "Always", None, ended(0), 0, False),
        (pod(state=LOOPS, restartCount=1, lastState=ended(1)), "Always", None, LOOPS, 1, False),
        (pod(state=ended(1)), "OnFailure", 1, FRESH, 1, False),
    ],
)
def test_a_container_goes_on_where_it_was(
    stored: Object, policy: str, running: int | None, state: Object, restarts: int, is_final: bool
) -> None:
    record = resumed_record(MAIN, stored, policy, FRESH, running)
    assert (record.state, record.restart_count, record.is_final) == (state, restarts, is_final)


def test_the_end_before_a_start_that_was_not_stored_is_its_last_state() -> None:
    assert resumed_record(MAIN, pod(state=ended(1)), "OnFailure", FRESH, 1).last_state == ended(1)
    loops = pod(state=LOOPS, restartCount=1, lastState=ended(3))
    assert resumed_record(MAIN, loops, "OnFailure", FRESH, 2).last_state == ended(3)


@pytest.mark.parametrize(
    ("stored", "is_known", "is_function", "lost"),
    [
        (pod(state=RUNNING), False, False, True),
        (pod(state=RUNNING), True, False, False),
        (pod(state=RUNNING), False, True, False),
        (pod(state=ended(1)), False, False, False),
        (pod(state=LOOPS), False, False, False),
        (pod(), False, False, False),
    ],
)
def test_only_what_ran_can_be_lost(stored: Object, is_known: bool, is_function: bool, lost: bool) -> None:
    assert is_lost(MAIN, stored, is_known=is_known, is_function=is_function) is lost


@pytest.mark.parametrize(
    ("stored", "restart", "noted"),
    [
        (pod(state=ended(1)), 0, True),
        (pod(state=LOOPS, lastState=ended(1), restartCount=2), 2, True),
        (pod(state=ended(1)), 1, False),
        (pod(state=RUNNING, lastState=ended(1), restartCount=1), 1, False),
        (pod(), 0, False),
    ],
)
def test_an_end_is_told_once(stored: Object, restart: int, noted: bool) -> None:
    assert is_noted("main", stored, restart) is noted
