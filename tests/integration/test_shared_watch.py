"""Many waits of one event loop and what they ask together: one list and one watch, from the first to the last."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import psutil
import pytest
import structlog

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.resources import job, pytorch_job
from airflow_llmtune.resources.revision import REVISION_LABEL
from airflow_llmtune.triggers import list_watch
from airflow_llmtune.triggers.katib import KatibExperimentTrigger
from airflow_llmtune.triggers.kserve import InferenceServiceTrigger
from airflow_llmtune.triggers.trainer import PyTorchJobTrigger
from deployments import raw_service
from held_jobs import (
    OURS,
    HeldJobs,
    Requests,
    cancel,
    events,
    held_search,
    new_namespace,
    pages,
    phases,
    reasons,
    start,
)
from waiting import eventually

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("short_pauses")]


def connections(plane: ControlPlane) -> int:
    """How many this process has open to the API server, as a client."""
    port = int(plane.url.rpartition(":")[2])
    found = psutil.Process().net_connections()
    return sum(one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) and one.raddr.port == port for one in found)


def watches() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("watch ")]


@pytest.mark.parametrize("count", [1, 20, 200])
async def test_however_many_wait_there_is_one_list_and_one_watch(plane, jobs, count):
    triggers = await jobs.create(count)
    asked, before = Requests(plane), connections(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"] == 1 and plane.open_streams == 2)
    # Those of the two watches, and one that is kept for the next question; both may have begun with one.
    assert connections(plane) - before <= 4
    wanted = await jobs.end(triggers)
    assert await phases(waits) == wanted
    assert asked["list"] == pages(count)
    assert (asked["watch"], asked["get"]) == (1, 0)


async def test_each_namespace_and_each_kind_has_its_own(plane, kubeconfig, jobs):
    elsewhere = HeldJobs(kubeconfig, new_namespace(plane))
    triggers = [*await jobs.create(30), *await elsewhere.create(30)]
    held = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "torch", "labels": OURS}}
    container = {"name": "pytorch", "image": "busybox", "command": ["true"]}
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    held["spec"] = {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": {"Master": master}}
    async with jobs.connect() as client:
        made = await client.create(pytorch_job.KIND, jobs.namespace, held)
    triggers += [jobs.trigger(made, PyTorchJobTrigger) for _ in range(30)]
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: plane.open_streams == 5)
    assert sorted(watches()) == sorted(
        [
            f"watch events in {jobs.namespace}",
            f"watch events in {elsewhere.namespace}",
            f"watch jobs in {jobs.namespace}",
            f"watch jobs in {elsewhere.namespace}",
            f"watch pytorchjobs in {jobs.namespace}",
        ]
    )
    assert asked.all == {
        ("list", "jobs.batch"): 2 * pages(30),
        ("watch", "jobs.batch"): 2,
        ("list", "events"): 2,
        ("watch", "events"): 2,
        ("list", "pytorchjobs.kubeflow.org"): 1,
        ("watch", "pytorchjobs.kubeflow.org"): 1,
    }
    await cancel(waits)


async def test_experiments_share_the_watch_of_their_trials_too(plane, jobs):
    kind, count = KatibExperimentTrigger.kind, 10
    async with jobs.connect() as client:
        made = [await client.create(kind, jobs.namespace, held_search(f"search-{number}")) for number in range(count)]
        asked = Requests(plane, "experiments.kubeflow.org")
        waits = start([jobs.trigger(one, KatibExperimentTrigger) for one in made])
        await eventually(lambda: plane.open_streams == 3)
        assert sorted(watches()) == [
            f"watch {plural} in {jobs.namespace}" for plural in ("events", "experiments", "trials")
        ]
        for one in made:
            await client.delete(kind, jobs.namespace, one["metadata"]["name"])
    assert await reasons(waits) == ["ObjectDeleted"] * count
    assert (asked["list"], asked["watch"]) == (1, 1)


async def test_two_deployments_share_three_watches(plane, jobs):
    kind = InferenceServiceTrigger.kind
    never = {"revisions": ["none"], "started": time.time(), "start_timeout": 600}
    # No node has the label.
    predictor = {"labels": {REVISION_LABEL: "none"}, "nodeSelector": {"held": "true"}, "minReplicas": 1}
    async with jobs.connect() as client:
        bodies = [raw_service(f"chat-{number}", "/models/none", **predictor) for number in range(2)]
        made = [await client.create(kind, jobs.namespace, body) for body in bodies]
        asked = Requests(plane)
        waits = start([jobs.trigger(one, InferenceServiceTrigger, **never) for one in made])
        await eventually(lambda: plane.open_streams == 3)
        assert sorted(watches()) == [
            f"watch {plural} in {jobs.namespace}" for plural in ("deployments", "inferenceservices", "pods")
        ]
        lists = {key: count for key, count in asked.all.items() if key[0] in {"list", "watch"}}
        assert sorted(lists.values()) == [1] * 6
        for one in made:
            await client.delete(kind, jobs.namespace, one["metadata"]["name"])
    assert await reasons(waits) == ["ObjectDeleted"] * 2
    await eventually(lambda: plane.open_streams == 0)


async def test_the_last_wait_closes_everything_and_the_next_one_begins_anew(plane, jobs):
    triggers = await jobs.create(20)
    asked = Requests(plane)
    before = connections(plane)
    for round_ in (1, 2):
        waits = start(triggers)
        await eventually(lambda: plane.open_streams == 2)
        await cancel(waits[1:])
        assert plane.open_streams == len(watches()) == 2, "one still waits"
        await cancel(waits[:1])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await eventually(lambda: plane.open_streams == 0 and connections(plane) == before)
        assert (asked["list"], asked["watch"]) == (round_, round_)


async def test_who_comes_later_finds_what_was_listed_without_a_question(plane, jobs):
    first, *others = await jobs.create(20)
    asked = Requests(plane)
    waits = start([first])
    await eventually(lambda: asked["watch"])
    waits += start(others)
    wanted = await jobs.end([first, *others])
    assert await phases(waits) == wanted
    assert (asked["list"], asked["watch"], asked["get"]) == (1, 1, 0)


async def test_the_event_of_one_wait_leaves_the_others_waiting(plane, jobs):
    triggers = await jobs.create(20)
    waits = start(triggers)
    await eventually(lambda: plane.open_streams == 2)
    assert await jobs.end(triggers[:1]) == await phases(waits[:1])
    assert not any(wait.done() for wait in waits[1:])
    await cancel(waits)


async def test_a_watch_that_ends_in_time_goes_on_from_where_it_was(plane, jobs, monkeypatch):
    monkeypatch.setattr(list_watch, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(list_watch, "SHORT_WATCH_SECONDS", 0.5)
    triggers = await jobs.create(20)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"] == 1)
    # While the one has ended and before the next begins, too.
    await eventually(lambda: plane.open_streams == 0)
    wanted = await jobs.end(triggers[:3])
    await eventually(lambda: asked["watch"] == 3)
    wanted += await jobs.end(triggers[3:])
    assert await phases(waits) == wanted
    assert (asked["list"], asked["get"]) == (1, 0)


async def test_a_trigger_that_is_cancelled_twice_leaves_nothing_open(plane, jobs):
    async with jobs.connect() as client:
        made = await client.create(KatibExperimentTrigger.kind, jobs.namespace, held_search("search"))
    waits = start([*await jobs.create(20), jobs.trigger(made, KatibExperimentTrigger)])
    await eventually(lambda: plane.open_streams == 4)
    await cancel(waits, times=2)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()} and plane.open_streams == 0)


# Airflow's own hook reads the kubeconfig in a thread, and leaves it to the garbage collector when it is cancelled.
@pytest.mark.filterwarnings("ignore:.*kubeconfig.yaml:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file.*kubeconfig.yaml:ResourceWarning")
@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_wait_that_is_cancelled_as_it_begins_leaves_nothing_open(plane, jobs, turns):
    waits = start(await jobs.create(2))
    for _ in range(turns):
        await asyncio.sleep(0)
    await cancel(waits, times=2)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()} and plane.open_streams == 0)


class Contexts(logging.Handler):
    """Whose task each line of the shared watch would be written to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(structlog.contextvars.get_contextvars())


async def test_each_line_is_told_in_the_log_it_belongs_to(plane, jobs, caplog):
    """Airflow finds a trigger's log file by the context in which a line is logged."""
    caplog.set_level(logging.INFO, logger="airflow_llmtune")
    shared, own = Contexts(), Contexts()
    log = logging.getLogger("airflow_llmtune.one_trigger")
    list_watch.log.addHandler(shared)
    log.addHandler(own)
    triggers = await jobs.create(10)

    async def as_the_triggerer_runs_it(number: int) -> Any:
        structlog.contextvars.bind_contextvars(trigger_id=number)
        triggers[number]._log = log  # Airflow's own loggers print.
        return await events(triggers[number])

    try:
        waits = [asyncio.create_task(as_the_triggerer_runs_it(number)) for number in range(10)]
        await eventually(lambda: plane.open_streams == 2)
        plane.faults.add("/jobs\\?", code=503, times=1)
        plane.drop_watches()
        await eventually(lambda: "listed again" in caplog.text)
        await jobs.end(triggers)
        await phases(waits)
    finally:
        list_watch.log.removeHandler(shared)
        log.removeHandler(own)
    assert shared.found
    assert not any(shared.found)
    assert sorted(found["trigger_id"] for found in own.found) == list(range(10))
    told = sorted(message for message in caplog.messages if message.startswith("Job "))
    assert told == [f"{job.KIND.kind} job-{number}: no pod started yet" for number in range(10)]
