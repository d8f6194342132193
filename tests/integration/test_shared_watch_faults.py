"""Faults of the API server under many waits: each gets its one outcome, and the list is asked for once, not by each."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback

import pytest

from airflow_llmtune.hooks.kubeflow import KubeflowHook
from airflow_llmtune.resources import job
from airflow_llmtune.triggers import list_watch, shared_client
from airflow_llmtune.triggers.base import API_ERROR, OBJECT_DELETED, PERMISSION_DENIED
from airflow_llmtune.triggers.katib import KatibExperimentTrigger
from airflow_llmtune.triggers.shared_watch import _of_this_loop
from held_jobs import (
    Requests,
    cancel,
    events,
    held_search,
    pages,
    phases,
    reasons,
    start,
    suffered,
)
from waiting import eventually

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("short_pauses")]

COUNT = 120
FOREVER = 1_000_000
# Not that of the events, which meets its own.
WATCH = "/jobs\\?.*watch=true"


WATCH_FAULTS = {
    "410 at the start": {"code": 410},
    "410 in the stream": {"cut_watch": "expire"},
    "connection cut": {"cut_watch": "abort"},
    "ended early": {"cut_watch": "end"},
    "429": {"code": 429},
    "500": {"code": 500},
    "503": {"code": 503},
    "401": {"code": 401},
    "no answer": {"refuse": True},
}
LIST_FAULTS = {
    "429": {"code": 429},
    "500": {"code": 500},
    "503": {"code": 503},
    "504": {"code": 504},
    "401": {"code": 401},
    "403 of a server that has just started": {"code": 403},
    "no answer": {"refuse": True},
    "cut in the middle": {"cut_body_after": 1000},
}


@pytest.mark.parametrize("fault", WATCH_FAULTS.values(), ids=WATCH_FAULTS)
async def test_a_fault_of_the_watch_costs_one_list_for_all(plane, jobs, fault):
    triggers = await jobs.create(COUNT)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    await suffered(plane, 2, path=WATCH, **fault)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    # The first one, and one after each of the three watches that ended.
    assert asked["list"] <= 4 * pages(COUNT)
    assert asked["watch"] <= 4
    assert asked["get"] == 0


@pytest.mark.parametrize("fault", LIST_FAULTS.values(), ids=LIST_FAULTS)
async def test_a_fault_of_the_list_is_met_once_for_all(plane, jobs, fault):
    triggers = await jobs.create(COUNT)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    await suffered(plane, 3, path="/jobs\\?", **fault)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    assert asked["list"] <= 2 * pages(COUNT) + 3
    assert asked["watch"] <= 2
    assert asked["get"] == 0


async def test_what_happened_while_nothing_was_answered_is_seen_afterwards(plane, jobs):
    triggers = await jobs.create(COUNT)
    deleted, others = triggers[:10], triggers[10:]
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    await suffered(plane, 1, path="/jobs\\?", code=503)
    plane.faults.add("/jobs\\?", code=503, times=FOREVER)
    wanted = await jobs.end(others)
    await jobs.delete(deleted)
    assert not any(wait.done() for wait in waits)
    plane.faults.clear()
    assert await reasons(waits[:10]) == [OBJECT_DELETED] * 10
    assert await phases(waits[10:]) == wanted
    # Only who misses its object asks for it.
    assert asked["get"] == 10
    assert asked["list"] <= 3 * pages(COUNT)


async def test_a_list_that_expires_between_its_pages_begins_again(plane, jobs):
    triggers = await jobs.create(COUNT)
    plane.faults.add("continue=", code=410, times=2)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    # Two first pages without their second.
    assert (asked["list"], asked["get"]) == (pages(COUNT) + 2, 0)


async def test_a_history_that_is_gone_costs_one_list(plane, jobs, monkeypatch):
    # As one that has been open for long: from a version that is gone it could not go on.
    monkeypatch.setattr(list_watch, "SHORT_WATCH_SECONDS", 0.0)
    triggers = await jobs.create(COUNT)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    wanted = await jobs.end(triggers[:50])
    await phases(waits[:50])
    await jobs.create(1, prefix="foreign", labels={})  # A change that the watch does not show.
    plane._thread.call(plane.registry.store.compact)
    plane._thread.call(plane.registry.store.resync)
    wanted += await jobs.end(triggers[50:])
    assert await phases(waits) == wanted
    assert asked["list"] <= 2 * pages(COUNT)


async def test_the_server_is_left_alone_for_as_long_as_it_asks(plane, jobs):
    triggers = await jobs.create(COUNT)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    listed = asked["list"]
    begin = time.monotonic()
    await suffered(plane, 1, path="/jobs\\?", code=429, retry_after=1)
    await eventually(lambda: asked["list"] > listed)
    assert time.monotonic() - begin >= 1
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted


async def test_a_token_that_changes_on_disk_is_read_again(plane, kubeconfig, jobs):
    triggers = await jobs.create(COUNT)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    plane.rotate_token()
    plane.drop_watches()
    await eventually(lambda: plane.open_streams == 0)
    plane.write_kubeconfig(kubeconfig)
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    assert asked["list"] == 2 * pages(COUNT)
    assert asked["watch"] <= 2


# Who may not watch, or not even list.


async def test_who_may_not_watch_lists_for_all_and_is_told_once(plane, jobs, caplog):
    triggers = await jobs.create(COUNT, poll_interval=0.2)
    plane.faults.add(WATCH, code=403, message='User "me" cannot watch resource "jobs"', times=FOREVER)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["list"] >= 2 * pages(COUNT))
    # Two more between the end of the first and that of the last.
    before = asked["list"]
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    assert asked["list"] - before <= 2 * pages(COUNT) + 20
    assert asked["get"] == 0
    (warning,) = [one for one in caplog.records if one.name == list_watch.__name__]
    assert warning.levelno == logging.WARNING
    assert 'User "me" cannot watch resource "jobs"' in warning.getMessage()
    assert "Fix: allow the verb" in warning.getMessage()


async def test_who_joins_a_shared_poll_asks_for_its_object_once(plane, jobs, monkeypatch):
    plane.faults.add(WATCH, code=403, times=FOREVER)
    (early,) = await jobs.create(1, prefix="early", poll_interval=2.0)
    asked = Requests(plane)
    waits = start([early])
    await eventually(lambda: asked["list"] == 2)
    monkeypatch.setattr("airflow_llmtune.triggers.base.LAG_SECONDS", 0.05)
    late = await jobs.create(10, prefix="late", poll_interval=30.0)
    waits += start(late)
    await eventually(lambda: asked["list"] == 3)
    assert asked["get"] == 10
    await cancel(waits)


async def test_who_may_watch_again_one_day_does(plane, jobs, monkeypatch):
    monkeypatch.setattr(list_watch, "WATCH_AGAIN_SECONDS", 0.3)
    triggers = await jobs.create(COUNT, poll_interval=0.05)
    plane.faults.add(WATCH, code=403, times=2)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"] == 1)
    listed = asked["list"]
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    assert asked["list"] == listed
    assert asked["get"] == 0


async def test_who_may_not_list_is_told_at_once_by_one_question(plane, jobs):
    triggers = await jobs.create(COUNT)
    before = plane.faults.injected
    plane.faults.add("/jobs\\?", code=403, message='User "me" cannot list resource "jobs"', times=FOREVER)
    found = [outcome for fired in await asyncio.gather(*start(triggers)) for outcome in fired]
    assert [outcome.reason for outcome in found] == [PERMISSION_DENIED] * COUNT
    assert all('User "me" cannot list resource "jobs"' in outcome.message for outcome in found)
    assert plane.faults.injected - before == 1


async def test_who_comes_while_a_forbidden_watch_ends_gets_a_new_one(plane, jobs):
    """The first to be told come back before the last has been told."""
    triggers = await jobs.create(200)
    plane.faults.add("/jobs\\?", code=403, times=1)

    async def twice(number: int) -> None:
        ((refused,)) = await events(triggers[number])
        assert refused.reason == API_ERROR
        return await events(triggers[number])

    waits = [asyncio.create_task(twice(number)) for number in range(200)]
    await eventually(lambda: plane.open_streams == 1)
    wanted = await jobs.end(triggers)
    async with asyncio.timeout(10):
        assert await phases(waits) == wanted


async def test_a_list_that_takes_long_is_not_what_a_watch_lasted(plane, jobs, monkeypatch):
    monkeypatch.setattr(list_watch, "SHORT_WATCH_SECONDS", 0.05)
    waits = start(triggers := await jobs.create(2))
    await eventually(lambda: plane.open_streams > 0)
    plane.faults.add(WATCH, code=503, times=FOREVER)
    plane.faults.add("/jobs\\?", delay_seconds=0.1, times=FOREVER)
    plane.drop_watches()
    (watch,) = [one for one in watches_of_this_loop() if one.selection.kind == job.KIND]
    # Else it would be asked for one list after the other.
    await eventually(lambda: watch._failures >= 3)
    plane.faults.clear()
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted


async def test_an_error_of_our_own_ends_each_wait_and_is_told_in_as_many_lines(jobs, monkeypatch):
    async def mistaken(self: list_watch.ListWatch, client: object) -> None:
        raise ArithmeticError("odd")

    triggers = await jobs.create(COUNT)
    monkeypatch.setattr(list_watch.ListWatch, "_list", mistaken)
    found = await asyncio.gather(*start(triggers), return_exceptions=True)
    assert {type(error) for error in found} == {ArithmeticError}
    assert len(list(traceback.walk_tb(found[-1].__traceback__))) < 30


async def test_a_connection_that_is_never_told_ends_the_waits_in_their_time(jobs, monkeypatch):
    async def silent(self: KubeflowHook) -> None:
        await asyncio.Event().wait()

    triggers = await jobs.create(3, api_retry_timeout=0.3)
    monkeypatch.setattr(shared_client, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(KubeflowHook, "_load_config", silent)
    found = await asyncio.gather(*start(triggers))
    assert {(one.reason, "0.05 s" in one.message) for (one,) in found} == {(API_ERROR, True)}


async def test_forbidden_trials_are_asked_for_once_for_all_experiments(plane, jobs):
    plane.faults.add("/trials\\?", code=403, times=FOREVER)
    kind, before = KatibExperimentTrigger.kind, plane.faults.injected
    async with jobs.connect() as client:
        made = [await client.create(kind, jobs.namespace, held_search(f"search-{number}")) for number in range(10)]
        waits = []
        for one in made:
            waits += start([jobs.trigger(one, KatibExperimentTrigger)])
            await eventually(lambda: [one for one in watches_of_this_loop() if not one.may_watch])
        await eventually(lambda: all(one.is_listed or not one.may_watch for one in watches_of_this_loop()))
        assert plane.faults.injected == before + 1
        for one in made:
            await client.delete(kind, jobs.namespace, one["metadata"]["name"])
    assert await reasons(waits) == [OBJECT_DELETED] * len(made)
    assert plane.faults.injected == before + 1


def watches_of_this_loop() -> list[list_watch.ListWatch]:
    return list(_of_this_loop()._watches.values())


async def test_who_may_not_watch_trials_for_a_moment_hears_of_them_again(plane, jobs, monkeypatch):
    monkeypatch.setattr(list_watch, "WATCH_AGAIN_SECONDS", 0.1)
    kind = KatibExperimentTrigger.kind
    async with jobs.connect() as client:
        first = await client.create(kind, jobs.namespace, held_search("first"))
        asked = Requests(plane, "trials.kubeflow.org")
        waits = start([jobs.trigger(first, KatibExperimentTrigger)])
        await eventually(lambda: asked["watch"])
        # Its trial comes through the stream, which is proof that it may be watched.
        await client.create(kind, jobs.namespace, held_search("second"))
        await eventually(lambda: all(one.is_listed for one in _of_this_loop()._watches.values()))
        await suffered(plane, 2, path="/trials\\?", code=403)
        await eventually(lambda: asked["watch"] == 2 and plane.open_streams == 3)
        for name in ("first", "second"):
            await client.delete(kind, jobs.namespace, name)
    assert await reasons(waits) == [OBJECT_DELETED]
