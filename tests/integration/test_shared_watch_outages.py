"""A server that stays away, is killed and started again, or comes back another: what becomes of those who wait."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.apiserver import watch
from airflow_llmtune.triggers.base import API_ERROR, OBJECT_DELETED
from held_jobs import HeldJobs, Requests, phases, reasons, start, suffered
from program import Program
from waiting import eventually

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("short_pauses")]

COUNT = 120
FOREVER = 1_000_000


async def test_each_wait_has_its_own_patience(plane, jobs):
    patient = await jobs.create(60, prefix="patient", api_retry_timeout=60)
    hasty = await jobs.create(60, prefix="hasty", api_retry_timeout=0.5)
    asked = Requests(plane)
    waits, given_up = start(patient), start(hasty)
    await eventually(lambda: asked["watch"])
    await suffered(plane, 1, path="/jobs\\?", code=503)
    plane.faults.add("/jobs\\?", code=503, message="still starting", times=FOREVER)
    assert await reasons(given_up) == [API_ERROR] * 60
    assert all("still starting" in fired[0].message for fired in await asyncio.gather(*given_up))
    assert not any(wait.done() for wait in waits)
    plane.faults.clear()
    wanted = await jobs.end(patient)
    assert await phases(waits) == wanted
    assert asked["get"] == 0


async def test_who_comes_while_the_server_is_away_has_all_its_patience_and_does_not_ask_by_itself(plane, jobs):
    (early,) = await jobs.create(1, prefix="early")
    asked = Requests(plane)
    waits = start([early])
    await eventually(lambda: asked["watch"])
    await suffered(plane, 1, method="GET", path="/jobs", code=503)
    plane.faults.add("/jobs", method="GET", code=503, times=FOREVER)
    late = await jobs.create(40, prefix="late", api_retry_timeout=3.0)
    await asyncio.sleep(3.0)
    before = plane.faults.injected
    waits += start(late)
    await eventually(lambda: plane.faults.injected >= before + 3)
    assert plane.faults.injected - before < 10
    assert not any(wait.done() for wait in waits)
    plane.faults.clear()
    wanted = await jobs.end([early, *late])
    assert await phases(waits) == wanted


# A server in a process of its own.


@pytest.fixture
def served(program: Program) -> HeldJobs:
    return HeldJobs(str(program.kubeconfig))


async def test_a_server_that_is_killed_and_started_again_loses_no_event(program, served):
    triggers = await served.create(COUNT)
    waits = start(triggers)
    wanted = await served.end(triggers[:40])
    await phases(waits[:40])
    await asyncio.to_thread(program.kill)
    await asyncio.sleep(0)
    await asyncio.to_thread(program.restart)
    wanted += await served.end(triggers[40:80])
    await asyncio.to_thread(program.kill)
    await asyncio.to_thread(program.restart)
    wanted += await served.end(triggers[80:])
    assert await phases(waits) == wanted


async def test_a_server_that_comes_back_without_its_data_ends_each_wait(program, served):
    triggers = await served.create(COUNT)
    waits = start(triggers)
    assert await served.end(triggers[:3]) == await phases(waits[:3])
    await asyncio.to_thread(program.kill)
    shutil.rmtree(Path(program.state))
    # Another token and another certificate, too.
    await asyncio.to_thread(program.restart)
    assert await reasons(waits[3:]) == [OBJECT_DELETED] * (COUNT - 3)


async def test_a_server_that_counts_from_an_earlier_version_is_not_trusted(kubeconfig, monkeypatch):
    """After a restore from a backup it sends nothing to who has seen later versions, but bookmarks."""
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.1)
    with ControlPlane(images={"busybox": Path("/usr")}) as restored:
        restored.write_kubeconfig(kubeconfig)
        jobs = HeldJobs(kubeconfig)
        triggers = await jobs.create(COUNT)
        asked = Requests(restored)
        waits = start(triggers)
        await eventually(lambda: asked["watch"])
        restored.registry.store.revision -= 5_000
        wanted = await jobs.end(triggers)
        assert await phases(waits) == wanted
        assert asked["get"] == 0


async def test_a_server_that_nobody_starts_again_ends_each_wait_when_its_time_is_over(program, served):
    hasty = await served.create(40, prefix="hasty", api_retry_timeout=0.5)
    patient = await served.create(40, prefix="patient")
    waits, given_up = start(patient), start(hasty)
    wanted = await served.end(patient[:3])
    assert await phases(waits[:3]) == wanted
    await asyncio.to_thread(program.kill)
    assert await reasons(given_up) == [API_ERROR] * 40
    assert all("cannot be reached" in fired[0].message for fired in await asyncio.gather(*given_up))
    # One that has never seen it has as much time.
    assert await reasons(start(hasty[:1])) == [API_ERROR]
    assert not any(wait.done() for wait in waits[3:])
    await asyncio.to_thread(program.restart)
    wanted = await served.end(patient[3:])
    assert await phases(waits[3:]) == wanted
