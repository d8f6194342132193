"""The wait loop against a control plane that misbehaves on purpose, and who may delete what on a kill."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_llmtune.hooks.kubeflow import KubeflowHook
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import OWNER_ANNOTATION, Outcome
from airflow_llmtune.triggers import base
from airflow_llmtune.triggers.trainer import JobTrigger

# Not that of the events, which meets its own.
WATCH = "/jobs\\?.*watch=true"
OWNER = "0f0e6c4e-9f6a-4c51-8f3b-6a8e0a3f9d10"


def sleeping_job(name: str, seconds: float, exit_code: int = 0) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", f"sleep {seconds}; exit {exit_code}"]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    metadata = {"name": name, "annotations": {OWNER_ANNOTATION: OWNER}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"backoffLimit": 0, "template": pod}}


@pytest.fixture
def start(ask, kubeconfig):
    """Create a Job and return the trigger that waits for it."""

    def create(seconds: float = 0.3, exit_code: int = 0, **changes: Any) -> JobTrigger:
        name = f"job-{uuid.uuid4().hex[:8]}"
        made = ask(lambda client: client.create(job.KIND, "default", sleeping_job(name, seconds, exit_code)))
        settings = {
            "name": name,
            "namespace": "default",
            "uid": made["metadata"]["uid"],
            "kubernetes_conn_id": None,
            "config_file": kubeconfig,
            "api_retry_timeout": 10.0,
        }
        return JobTrigger(**{**settings, **changes})

    return create


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_the_event_tells_how_the_job_ended(start, exit_code, phase):
    trigger = await asyncio.to_thread(start, exit_code=exit_code)
    events = [event.payload async for event in trigger.run()]
    assert [Outcome.from_event(event).phase for event in events] == [phase]
    assert events[0]["name"] == trigger.name


@pytest.mark.parametrize(
    "fault",
    [
        {"path": WATCH, "cut_watch": "abort", "times": 2},
        {"path": WATCH, "cut_watch": "end", "times": 2},
        {"path": WATCH, "cut_watch": "expire", "times": 2},
        {"path": WATCH, "code": 410, "times": 2},
        {"path": WATCH, "code": 500, "times": 2},
        {"path": "/jobs\\?", "code": 429, "retry_after": 1, "times": 2},
        {"path": "/jobs\\?", "code": 503, "times": 3},
        {"path": "/jobs\\?", "code": 401, "times": 1},
        {"path": WATCH, "code": 403, "times": 99},
    ],
    ids=lambda fault: f"{fault.get('code') or fault['cut_watch']}-{fault['path']}",
)
async def test_no_fault_of_the_api_server_loses_the_end_of_a_job(plane, start, fault):
    trigger = await asyncio.to_thread(start, seconds=1.0, poll_interval=0.2)
    before = plane.faults.injected
    plane.faults.add(**fault)
    try:
        assert (await trigger.wait()).phase == "Succeeded"
    finally:
        plane.faults.clear()
    assert plane.faults.injected > before


async def test_watches_that_end_at_once_do_not_become_a_loop_of_lists(plane, start):
    trigger = await asyncio.to_thread(start, seconds=3.0)
    plane.faults.add(WATCH, cut_watch="end", times=10_000)
    before = plane.requests[("list", "jobs.batch")]
    try:
        assert (await trigger.wait()).phase == "Succeeded"
    finally:
        plane.faults.clear()
    assert plane.requests[("list", "jobs.batch")] - before < 10


async def test_a_forbidden_list_is_one_clear_outcome(plane, start):
    trigger = await asyncio.to_thread(start, seconds=0)
    plane.faults.add("/jobs\\?", code=403, message='User "me" cannot list resource "jobs"', times=99)
    try:
        outcome = await trigger.wait()
    finally:
        plane.faults.clear()
    assert outcome.reason == base.PERMISSION_DENIED
    assert outcome.message.startswith("Asked by the triggerer: The user 'me' may not list jobs")
    assert 'User "me" cannot list resource "jobs"' in outcome.message


async def test_an_api_server_that_stays_away_ends_the_wait_in_bounded_time(plane, start):
    trigger = await asyncio.to_thread(start, seconds=30, api_retry_timeout=1.0)
    plane.faults.add("/jobs\\?", code=503, times=10_000)
    begin = time.monotonic()
    try:
        outcome = await trigger.wait()
    finally:
        plane.faults.clear()
    assert outcome.reason == base.API_ERROR
    assert time.monotonic() - begin < 20


async def test_another_incarnation_of_the_same_name_counts_as_deleted(start):
    trigger = await asyncio.to_thread(start, uid=str(uuid.uuid4()))
    assert (await trigger.wait()).reason == base.OBJECT_DELETED


async def test_a_deadline_that_has_passed_ends_the_wait(start):
    trigger = await asyncio.to_thread(start, seconds=30, deadline=time.time() + 0.5)
    assert (await trigger.wait()).reason == base.WAIT_TIMEOUT


def test_serialize_round_trips_and_holds_every_argument(start):
    trigger = start(deadline=12.5, poll_interval=1.0, on_kill_action="keep")
    path, kwargs = trigger.serialize()
    assert path == "airflow_llmtune.triggers.trainer.JobTrigger"
    assert JobTrigger(**kwargs).serialize() == (path, kwargs)
    assert kwargs["deadline"] == 12.5


@pytest.mark.parametrize(
    ("state", "owner", "changes", "deleted"),
    [
        ("failed", OWNER, {}, True),
        ("success", OWNER, {}, True),
        ("removed", OWNER, {}, True),
        ("deferred", OWNER, {}, False),
        ("cleared", OWNER, {}, False),
        ("running", OWNER, {}, False),
        ("failed", "another try", {}, False),
        ("failed", OWNER, {"on_kill_action": "keep"}, False),
        ("failed", OWNER, {"uid": "another incarnation"}, False),
    ],
)
async def test_a_kill_deletes_only_what_the_ended_task_still_owns(
    start, kubeconfig, monkeypatch, state, owner, changes, deleted
):
    trigger = await asyncio.to_thread(start, seconds=30, **changes)
    trigger.task_instance = SimpleNamespace(id=owner, dag_id="d", task_id="t", run_id="r", map_index=-1)
    # The state comes from Airflow's supervisor, which only a real triggerer has; tests/system runs one.
    monkeypatch.setattr(base, "task_state", lambda ti: state)
    await trigger.on_kill()
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        left = await client.find(job.KIND, "default", trigger.name)
        assert (left is None or "deletionTimestamp" in left["metadata"]) == deleted
        await client.delete(job.KIND, "default", trigger.name)


async def test_a_kill_after_the_event_was_fired_deletes_nothing(start, monkeypatch):
    trigger = await asyncio.to_thread(start, seconds=0)
    trigger.task_instance = SimpleNamespace(id=OWNER, dag_id="d", task_id="t", run_id="r", map_index=-1)
    monkeypatch.setattr(base, "task_state", lambda ti: "failed")
    async for _ in trigger.run():
        await trigger.on_kill()
    async with trigger.hook.connect() as client:
        assert await client.find(job.KIND, "default", trigger.name) is not None


async def test_a_repeated_cancel_does_not_cut_the_deletion_short(start, kubeconfig, monkeypatch):
    trigger = await asyncio.to_thread(start, seconds=30)
    trigger.task_instance = SimpleNamespace(id=OWNER, dag_id="d", task_id="t", run_id="r", map_index=-1)
    asked = threading.Event()

    def slow_state(ti: Any) -> str:
        asked.set()
        time.sleep(0.3)
        return "failed"

    monkeypatch.setattr(base, "task_state", slow_state)
    kill = asyncio.create_task(trigger.on_kill())
    await asyncio.to_thread(asked.wait)
    kill.cancel()
    async with KubeflowHook(None, config_file=kubeconfig).connect() as client:
        while await client.find(job.KIND, "default", trigger.name) is not None:
            await asyncio.sleep(0.1)
