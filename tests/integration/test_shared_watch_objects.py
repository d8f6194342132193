"""What becomes of one object while many are waited for: gone, made anew, not ours, unreadable, without progress."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import SETTLED_LABEL, Outcome
from airflow_llmtune.triggers import base, list_watch
from airflow_llmtune.triggers.base import OBJECT_DELETED, STALLED, WAIT_TIMEOUT
from airflow_llmtune.triggers.trainer import JobTrigger
from held_jobs import (
    OURS,
    HeldJobs,
    Requests,
    cancel,
    ended,
    events,
    held_job,
    pages,
    phases,
    reasons,
    start,
)
from waiting import eventually

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("short_pauses")]

FOREVER = 1_000_000


async def watched(plane: ControlPlane, asked: Requests) -> None:
    await eventually(lambda: asked["watch"])


async def away(plane: ControlPlane) -> None:
    """Let nothing be answered to a GET from now on, which the watch has noticed."""
    before = plane.faults.injected
    plane.faults.add("/jobs", method="GET", code=503, times=FOREVER)
    plane.drop_watches()
    await eventually(lambda: plane.faults.injected > before)


# It goes away.


async def test_an_object_that_is_deleted_ends_its_own_waits_after_one_question_each(plane, jobs):
    triggers = await jobs.create(60)
    asked = Requests(plane)
    waits = start([*triggers, triggers[0]])
    await watched(plane, asked)
    await jobs.delete(triggers[:20])
    assert await reasons([*waits[:20], waits[-1]]) == [OBJECT_DELETED] * 21
    assert asked["get"] == 21
    assert not any(wait.done() for wait in waits[20:-1])
    wanted = await jobs.end(triggers[20:])
    assert await phases(waits[20:-1]) == wanted


@pytest.mark.parametrize("seen", [True, False], ids=["while it is watched", "while the server is away"])
async def test_another_object_of_the_same_name_is_not_what_was_waited_for(plane, jobs, seen):
    # More than are told of a list before the first of them get their turn.
    triggers = await jobs.create(4 * list_watch.TURN)
    asked = Requests(plane)
    old = start(triggers)
    await watched(plane, asked)
    if not seen:
        await away(plane)
    await jobs.delete(triggers[:5])
    anew = await jobs.create(5)
    plane.faults.clear()
    assert await reasons(old[:5]) == [OBJECT_DELETED] * 5
    new = start(anew)
    wanted = await jobs.end([*anew, *triggers[5:]])
    assert await phases([*new, *old[5:]]) == wanted


async def test_another_object_of_the_same_name_in_the_first_list_is_not_what_was_waited_for(plane, jobs):
    triggers = await jobs.create(4 * list_watch.TURN)
    old = [
        jobs.trigger({"metadata": {"name": trigger.name, "uid": str(uuid.uuid4())}})
        for trigger in triggers[:: len(triggers) // 5]
    ]
    assert await reasons(start(old)) == [OBJECT_DELETED] * len(old)


async def test_what_never_existed_counts_as_deleted(plane, jobs):
    triggers = await jobs.create(10)
    missing = [
        jobs.trigger({"metadata": {"name": f"missing-{number}", "uid": str(uuid.uuid4())}}) for number in range(10)
    ]
    asked = Requests(plane)
    waits = start(triggers)
    assert await reasons(start(missing)) == [OBJECT_DELETED] * 10
    assert asked["get"] == 10
    assert not any(wait.done() for wait in waits)
    await cancel(waits)


async def test_a_server_that_lost_all_objects_is_not_asked_about_all_of_them_at_once(plane, jobs, monkeypatch):
    monkeypatch.setattr(list_watch, "ASKING", 3)
    triggers = await jobs.create(60)
    asked = Requests(plane)
    waits = start(triggers)
    await watched(plane, asked)
    plane.faults.add("/jobs/", method="GET", delay_seconds=2.0, times=3)
    before = plane.faults.injected
    await jobs.delete(triggers)
    await eventually(lambda: plane.faults.injected == before + 3)
    await asyncio.sleep(0.2)
    assert asked["get"] == 0, "the others wait for the first three"
    assert await reasons(waits) == [OBJECT_DELETED] * 60
    assert asked["get"] == 60


# It is not where it is looked for.


async def test_an_object_that_the_stream_does_not_have_yet_is_asked_for_once(plane, jobs, monkeypatch):
    first = await jobs.create(1, prefix="first")
    # Long enough for the others to be made and asked for, on a busy machine too; not until they are asked for again.
    monkeypatch.setattr(base, "LAG_SECONDS", 60.0)
    plane.faults.add("watch=true", delay_seconds=8.0)
    asked = Requests(plane)
    injected = plane.faults.injected
    waits = start(first)
    await eventually(lambda: plane.faults.injected > injected)
    later = await jobs.create(20, prefix="later")
    waits += start(later)
    await eventually(lambda: asked["get"] == 20)
    await watched(plane, asked)
    wanted = await jobs.end([*first, *later])
    assert await phases(waits) == wanted
    assert (asked["list"], asked["watch"], asked["get"]) == (1, 1, 20)


async def test_an_object_without_our_label_is_watched_by_its_name(plane, jobs):
    ours = await jobs.create(20)
    (foreign,) = await jobs.create(1, prefix="foreign", labels={})
    asked = Requests(plane)
    waits = start([*ours, foreign])
    await eventually(lambda: plane.open_streams == 3)
    assert (asked["list"], asked["watch"], asked["get"]) == (2, 2, 1)
    wanted = await jobs.end([*ours, foreign])
    assert await phases(waits) == wanted


async def settle(jobs: HeldJobs, name: str) -> None:
    async with jobs.connect() as client:
        await client.patch(job.KIND, jobs.namespace, name, {"metadata": {"labels": {SETTLED_LABEL: "true"}}})


async def test_what_was_delivered_to_one_copy_still_ends_the_other(plane, jobs):
    """Two triggerers run the same wait for a while; the task settles the object after the first event."""
    triggers = await jobs.create(5)
    asked = Requests(plane)
    copies = start([*triggers, triggers[0]])
    await watched(plane, asked)
    await away(plane)
    wanted = await jobs.end(triggers[:1])
    await settle(jobs, triggers[0].name)
    plane.faults.clear()
    assert await phases([copies[0], copies[-1]]) == wanted * 2
    assert await phases(start(triggers[:1])) == wanted, "and one that comes later"
    await cancel(copies)


async def test_an_object_that_loses_its_label_is_followed_all_the_same(plane, jobs):
    triggers = await jobs.create(5)
    asked = Requests(plane)
    waits = start(triggers)
    await watched(plane, asked)
    await settle(jobs, triggers[0].name)
    await eventually(lambda: plane.open_streams == 3)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted


async def test_two_copies_have_one_event_each(plane, jobs):
    triggers = await jobs.create(30)
    again = [type(one)(**one.serialize()[1]) for one in triggers]
    asked = Requests(plane)
    waits = start([*triggers, *again])
    await watched(plane, asked)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted * 2
    assert (asked["list"], asked["watch"], asked["get"]) == (pages(30), 1, 0)


async def test_a_wait_that_was_cancelled_runs_again_from_the_start(plane, jobs):
    triggers = await jobs.create(30, stall_timeout=2.0)
    for _ in range(2):
        waits = start(triggers)
        await eventually(lambda: plane.open_streams == 2)
        await cancel(waits)
    await asyncio.sleep(2.0)
    # It has got no further for as long; nobody has looked meanwhile.
    waits = start(triggers)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted


class StrictTrigger(JobTrigger):
    @staticmethod
    def read_outcome(obj: dict[str, Any]) -> Outcome:
        if "odd" in obj["metadata"].get("annotations", {}):
            raise ValueError(f"{obj['metadata']['name']} is odd")
        return job.read_outcome(obj)


async def test_an_object_that_cannot_be_read_ends_its_own_waits_only(plane, jobs):
    triggers = await jobs.create(20, trigger=StrictTrigger)
    body = held_job("spoilt", OURS)
    body["metadata"]["annotations"] = {"odd": "from the start"}
    async with jobs.connect() as client:
        spoilt = jobs.trigger(await client.create(job.KIND, jobs.namespace, body), StrictTrigger)
        asked = Requests(plane)
        waits = start([*triggers, spoilt, spoilt])
        await watched(plane, asked)
        for wait in waits[-2:]:
            with pytest.raises(ValueError, match="spoilt is odd"):
                await wait
        odd = {"metadata": {"annotations": {"odd": "later"}}}
        await client.patch(job.KIND, jobs.namespace, triggers[0].name, odd)
    with pytest.raises(ValueError, match="job-0 is odd"):
        await waits[0]
    wanted = await jobs.end(triggers[1:])
    assert await phases(waits[1:-2]) == wanted
    assert (asked["list"], asked["watch"], asked["get"]) == (pages(21), 1, 0)


# Time alone ends the wait.


async def test_each_wait_has_its_own_deadline(plane, jobs):
    late = await jobs.create(20, prefix="late", deadline=time.time() + 0.5)
    in_time = await jobs.create(20, prefix="in-time", deadline=time.time() + 60)
    over = await jobs.create(1, prefix="over", deadline=time.time() - 1)
    waits = start([*late, *over, *in_time])
    assert await reasons(waits[:21]) == [WAIT_TIMEOUT] * 21
    wanted = await jobs.end(in_time)
    assert await phases(waits[21:]) == wanted


class SteppingTrigger(JobTrigger):
    @staticmethod
    def read_progress(obj: dict[str, Any]) -> str:
        return obj["metadata"].get("annotations", {}).get("step", "")


async def test_only_who_gets_no_further_stalls(plane, jobs):
    stuck = await jobs.create(20, prefix="stuck", stall_timeout=2.0)
    (alive,) = await jobs.create(1, prefix="alive", trigger=SteppingTrigger, stall_timeout=2.0)
    (patient,) = await jobs.create(1, prefix="patient")
    waits = start([*stuck, alive, patient])
    async with jobs.connect() as client:
        step = 0
        while not all(wait.done() for wait in waits[:20]):
            # A change that is no progress to the one is progress to the other.
            change = {"metadata": {"annotations": {"step": f"{(step := step + 1)}"}}}
            for trigger in (stuck[0], alive):
                await client.patch(job.KIND, jobs.namespace, trigger.name, change)
            await asyncio.sleep(0.1)
    assert await reasons(waits[:20]) == [STALLED] * 20
    assert not any(wait.done() for wait in waits[20:])
    wanted = await jobs.end([alive, patient])
    assert await phases(waits[20:]) == wanted


@pytest.mark.parametrize("listed", [True, False], ids=["after the first list", "before any list"])
async def test_nobody_stalls_while_the_server_is_away(plane, jobs, listed):
    triggers = await jobs.create(20, stall_timeout=1.5)
    asked = Requests(plane)
    if listed:
        waits = start(triggers)
        await watched(plane, asked)
        await away(plane)
        await asyncio.sleep(2.0)
        plane.faults.clear()
    else:
        plane.faults.add("/jobs\\?", delay_seconds=2.0)
        waits = start(triggers)
        await watched(plane, asked)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted


async def test_a_wait_for_one_object_alone_lists_and_watches_nothing_else(plane, jobs):
    """A worker that does not defer has no business with the objects of other tasks."""
    trigger, *_ = await jobs.create(20)
    asked = Requests(plane)
    waiting = asyncio.create_task(trigger.wait(alone=True))
    await watched(plane, asked)
    async with jobs.connect() as client:
        await client.patch(job.KIND, jobs.namespace, f"{trigger.name}/status", ended("Succeeded"))
    assert (await waiting).phase == "Succeeded"
    assert (asked["list"], asked["watch"], asked["get"]) == (1, 1, 0)
    assert base.API_ERROR not in await reasons([asyncio.create_task(events(trigger))])
