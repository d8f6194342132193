"""What does not get on: told in the task's log while it waits, and ended or warned of with all that there is to see."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import CannotStartError, StalledError, WaitTimeoutError
from airflow_llmtune.resources import event, job
from airflow_llmtune.triggers import scrutiny
from airflow_llmtune.triggers.base import STALLED, WAIT_TIMEOUT
from held_jobs import OURS, Requests, cancel, held_job, start
from task_run import defer
from tasks import fine_tune, tune
from waiting import eventually

pytestmark = pytest.mark.timeout(90)

NO_IMAGE = "registry.example/none:1"
SOON = timedelta(seconds=0.5)


def lines(log: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [message for message in log.messages if text in message]


# A pod that cannot start.


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob", "TrainJob"])
def test_a_training_whose_image_cannot_be_pulled_ends_with_that(kubeconfig, run, kind):
    operator = fine_tune(kubeconfig, image=NO_IMAGE, job_options={"job_kind": kind}, startup_timeout=SOON)
    with pytest.raises(CannotStartError) as caught:
        run.complete(operator)
    assert re.search(
        rf"{kind} \S+ cannot start: pod \S+: container \S+ cannot start \(ImagePullBackOff\)", str(caught.value)
    )
    assert "registry.example/none" in str(caught.value)


def test_a_tuning_whose_image_cannot_be_pulled_ends_with_that(kubeconfig, run):
    with pytest.raises(CannotStartError) as caught:
        run.complete(tune(kubeconfig, image=NO_IMAGE, startup_timeout=SOON))
    text = str(caught.value)
    assert text.count("Back-off pulling image") == 1
    assert text.count("for the same reason") == 1


@pytest.mark.parametrize("startup_timeout", [SOON, None])
def test_a_secret_that_is_not_there_ends_the_wait_unless_it_comes(kubeconfig, run, ask, startup_timeout):
    env = {"HF_TOKEN": {"secretKeyRef": {"name": f"late-{run.run_id[-8:]}", "key": "token"}}}
    operator = fine_tune(kubeconfig, env=env, startup_timeout=startup_timeout, timeout=timedelta(seconds=3))
    error = AirflowFailException if startup_timeout is None else CannotStartError
    with pytest.raises(error, match=r"CreateContainerConfigError\): secret \S+ not found") as caught:
        run.complete(operator)
    assert type(caught.value) is error


def test_a_volume_that_is_not_there_ends_the_wait(kubeconfig, run):
    operator = fine_tune(kubeconfig, model="pvc://nowhere/model", startup_timeout=SOON)
    with pytest.raises(CannotStartError, match=r"FailedMount") as caught:
        run.complete(operator)
    assert 'persistentvolumeclaim "nowhere" not found' in str(caught.value)


def test_a_pod_without_a_node_is_told_and_only_the_stall_ends_it(kubeconfig, run):
    wants = {"resources_per_node": {"cpu": 5000}, "startup_timeout": SOON, "stall_timeout": timedelta(seconds=2)}
    with pytest.raises(StalledError, match="no node can take the pod") as caught:
        run.complete(fine_tune(kubeconfig, **wants))
    assert type(caught.value) is StalledError


# Told while it waits.


async def test_a_complaint_is_told_once_however_often_it_is_said(kubeconfig, run, log, ask):
    trigger = await defer(run, fine_tune(kubeconfig, image=NO_IMAGE))
    wait = asyncio.create_task(trigger.wait())
    try:
        await eventually(lambda: lines(log, "Failed to pull image"))
        async with trigger.hook.connect() as client:
            found, _ = await client.list_all(event.KIND, "default", field_selector=event.WARNINGS)
            (said,) = [one for one in found if one["involvedObject"]["name"].startswith(trigger.name)]
            await client.patch(
                event.KIND, "default", said["metadata"]["name"], {"count": 2, "lastTimestamp": "2126-11-22T00:00:00Z"}
            )
            other = said["involvedObject"] | {"name": f"{trigger.name}-zzzzz"}
            await complain(client, other, "Failed", said["message"])
            await complain(client, other, "BackOff", "Back-off restarting failed container")
        await eventually(lambda: lines(log, "Back-off restarting"))
        assert len(lines(log, "Failed to pull image")) == 1
    finally:
        await cancel([wait])


async def complain(client: Any, about: dict[str, Any], reason: str, message: str) -> None:
    """As a controller does."""
    name = f"{about['name']}.{uuid.uuid4().hex[:16]}"
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": about | {"namespace": about.get("namespace", "default")},
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": "2026-11-22T09:00:00Z",
    }
    await client.create(event.KIND, body["involvedObject"]["namespace"], body)


QUOTA = 'Error creating: pods "{}-x2f4k" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1, used: 8'


async def test_a_quota_is_told_at_once_and_in_the_end(kubeconfig, run, log):
    """The control plane has none; the Job controller's own event tells of it."""
    operator = fine_tune(kubeconfig, resources_per_node={"cpu": 5000}, stall_timeout=timedelta(seconds=1.5))
    trigger = await defer(run, operator)
    async with trigger.hook.connect() as client:
        about = {"kind": "Job", "name": trigger.name, "apiVersion": "batch/v1"}
        await complain(client, about, "FailedCreate", QUOTA.format(trigger.name))
    outcome = await trigger.wait()
    assert outcome.reason == STALLED
    assert len(lines(log, "exceeded quota: gpus")) == 1


async def test_events_that_may_not_be_read_cost_one_line_and_the_wait_goes_on(plane, kubeconfig, run, log):
    trigger = await defer(run, fine_tune(kubeconfig, trainer_args={"nap": 1}))
    before = plane.faults.injected
    denied = 'events is forbidden: User "me" cannot list resource "events" in API group "" in the namespace "default"'
    plane.faults.add("/events\\?", code=403, message=denied, times=99)
    try:
        assert (await trigger.wait()).phase == "Succeeded"
    finally:
        plane.faults.clear()
    assert plane.faults.injected == before + 1
    assert len(lines(log, "may not list events: nothing is told")) == 1


@pytest.mark.usefixtures("short_pauses")
async def test_events_that_may_only_be_listed_are(plane, kubeconfig, run, log):
    trigger = await defer(run, fine_tune(kubeconfig, image=NO_IMAGE, poll_interval=0.2))
    plane.faults.add("/events\\?.*watch=true", code=403, times=99)
    wait = asyncio.create_task(trigger.wait())
    try:
        await eventually(lambda: lines(log, "Failed to pull image"))
        async with trigger.hook.connect() as client:
            await complain(client, {"kind": "Job", "name": trigger.name}, "FailedCreate", "told by the next list")
        await eventually(lambda: lines(log, "told by the next list"))
    finally:
        await cancel([wait])
    assert not lines(log, "nothing is told")


async def test_a_thousand_waits_read_the_complaints_in_one_list(plane, jobs, log):
    """Of other people's objects nothing is kept."""
    async with jobs.connect() as client:
        for name in ("theirs", "ours-0a1b2c3d-1", "ours-0a1b2c3d-10"):
            about = {"kind": "Job", "name": name, "namespace": jobs.namespace}
            await complain(client, about, "FailedCreate", f"no room for {name}")
        made = await client.create(job.KIND, jobs.namespace, held_job("ours-0a1b2c3d-1", OURS))
    triggers = [jobs.trigger(made) for _ in range(1000)]
    for trigger in triggers:
        trigger._log = logging.getLogger("airflow_llmtune.triggers")
    asked = Requests(plane, "events")
    waits = start(triggers)
    await eventually(lambda: len(lines(log, "no room for ours-0a1b2c3d-1 ")) == 1000)
    assert not lines(log, "theirs")
    assert not lines(log, "ours-0a1b2c3d-10")
    await eventually(lambda: asked["watch"])
    assert (asked["list"], asked["watch"]) == (1, 1)
    await cancel(waits)


# Warned of.


async def test_a_warning_shows_what_there_is_and_the_wait_goes_on(kubeconfig, run, log):
    operator = fine_tune(kubeconfig, trainer_args={"nap": 4}, stall_timeout=timedelta(seconds=1.5), on_stall="warn")
    trigger = await defer(run, operator)
    assert (await trigger.wait()).phase == "Succeeded"
    (told,) = lines(log, "got no further for 1.5 s")
    assert re.search(r"pod \S+: runs since ", told)


async def test_a_pod_that_cannot_start_is_warned_of_once(kubeconfig, run, log):
    operator = fine_tune(
        kubeconfig, image=NO_IMAGE, startup_timeout=SOON, on_stall="warn", timeout=timedelta(seconds=3)
    )
    trigger = await defer(run, operator)
    assert (await trigger.wait()).reason == WAIT_TIMEOUT
    (told,) = lines(log, "cannot start: pod")
    assert "Back-off pulling image" in told


def test_a_volume_that_was_missing_long_ago_ends_nothing(kubeconfig, run, monkeypatch):
    """The event stays for an hour; the pod may be pulling a large image by now."""
    monkeypatch.setattr(scrutiny, "FRESH_SECONDS", 0.0)
    limits = {"startup_timeout": SOON, "timeout": timedelta(seconds=2)}
    with pytest.raises(AirflowFailException, match="FailedMount") as caught:
        run.complete(fine_tune(kubeconfig, model="pvc://nowhere/model", **limits))
    assert type(caught.value.__cause__) is WaitTimeoutError


async def test_pods_that_may_not_be_listed_cost_one_line_and_the_wait_goes_on(plane, kubeconfig, run, log):
    limits = {"startup_timeout": SOON, "timeout": timedelta(seconds=2.5)}
    trigger = await defer(run, fine_tune(kubeconfig, image=NO_IMAGE, **limits))
    before = plane.faults.injected
    plane.faults.add("/pods\\?", code=403, message="no rights", times=99)
    try:
        assert (await trigger.wait()).reason == WAIT_TIMEOUT
    finally:
        plane.faults.clear()
    assert len(lines(log, "Whether a pod cannot start could not be found out")) == 1
    assert plane.faults.injected == before + 1
