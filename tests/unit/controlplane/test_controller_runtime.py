from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import bad_request, conflict, internal_error
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, EVENT, JOB, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers import runtime
from airflow_llmtune.controlplane.controllers.runtime import Controller, Manager, owner_reference
from definitions import definition, widget
from objects import Object, shell_job
from waiting import eventually


class Recorder(Controller):
    """Counts its calls; ``act`` is what a call does."""

    kind = JOB
    owns = (POD,)

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.calls: list[str] = []
        self.act: Callable[[], Any] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.running: Counter[str] = Counter()
        self.most_of: Counter[str] = Counter()
        self.most_running = 0

    async def reconcile(self, namespace: str, name: str) -> float | None:
        self.calls.append(name)
        self.running[name] += 1
        self.most_of[name] = max(self.running[name], self.most_of[name])
        self.most_running = max(self.running.total(), self.most_running)
        try:
            await self.gate.wait()
            result: float | None = self.act()
            return result
        finally:
            self.running[name] -= 1

    async def called(self, times: int) -> None:
        await eventually(lambda: len(self.calls) >= times)


@pytest.fixture
async def recorder(registry: Registry) -> AsyncIterator[Recorder]:
    recorder = Recorder(registry)
    running = asyncio.create_task(Manager(registry, [recorder]).run())
    await asyncio.sleep(0)
    yield recorder
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def create_job(registry: Registry, name: str = "job") -> Object:
    containers = [{"name": "main", "image": "x"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    return registry.create(JOB, {"metadata": {"name": name, "namespace": "default"}, "spec": {"template": template}})


async def test_changes_during_a_call_become_one_more_call_never_two_at_once(
    registry: Registry, recorder: Recorder
) -> None:
    recorder.gate.clear()
    job = create_job(registry)
    await recorder.called(1)
    for count in range(20):
        registry.update_status(
            JOB, {**job, "status": {"active": count}, "metadata": {**job["metadata"], "resourceVersion": ""}}
        )
        await asyncio.sleep(0)
    recorder.gate.set()
    create_job(registry, "other")
    await recorder.called(3)
    assert sorted(recorder.calls) == ["job", "job", "other"]
    assert recorder.most_of["job"] == 1


async def test_different_objects_are_reconciled_side_by_side(registry: Registry, recorder: Recorder) -> None:
    recorder.gate.clear()
    for index in range(5):
        create_job(registry, f"job{index}")
    await recorder.called(5)
    assert recorder.most_running == 5


async def test_a_change_of_an_owned_object_calls_its_controller(registry: Registry, recorder: Recorder) -> None:
    job = create_job(registry)
    await recorder.called(1)
    metadata = {"name": "pod", "namespace": "default", "ownerReferences": [owner_reference(JOB, job)]}
    registry.create(POD, {"metadata": metadata, "spec": {"containers": [{"name": "a", "image": "x"}]}})
    await recorder.called(2)
    assert recorder.calls == ["job", "job"]


async def test_a_wish_to_look_again_is_kept(registry: Registry, recorder: Recorder) -> None:
    recorder.act = lambda: 0.01 if len(recorder.calls) < 3 else None
    create_job(registry)
    await recorder.called(3)


async def test_a_failure_is_told_as_an_event_and_tried_again(
    registry: Registry, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_twice() -> None:
        if len(recorder.calls) < 3:
            raise RuntimeError("no luck")

    recorder.act = fail_twice
    create_job(registry)
    await recorder.called(3)
    (event,) = registry.list(EVENT, "default")[0]
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "ReconcileError", "no luck")
    assert event["count"] == 2
    assert "no luck" in caplog.text


@pytest.mark.parametrize(
    ("error", "is_traced"), [(bad_request("no"), False), (internal_error("no"), True), (RuntimeError("no"), True)]
)
async def test_what_the_api_refuses_is_logged_without_a_traceback(
    registry: Registry,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    is_traced: bool,
) -> None:
    def fail_once() -> None:
        if len(recorder.calls) < 2:
            raise error

    recorder.act = fail_once
    create_job(registry)
    await recorder.called(2)
    (line,) = [one for one in caplog.records if "reconcile of Job default/job failed: " in one.getMessage()]
    assert bool(line.exc_info) == is_traced


async def test_a_conflict_is_tried_again_in_silence(registry: Registry, recorder: Recorder) -> None:
    def conflict_once() -> None:
        if len(recorder.calls) < 2:
            raise conflict(JOB, "job")

    recorder.act = conflict_once
    create_job(registry)
    await recorder.called(2)
    assert registry.list(EVENT, "default")[0] == []


async def test_what_happened_unseen_is_looked_at_when_the_watch_has_lost_its_place(recorder: Recorder) -> None:
    registry = recorder.registry
    job = create_job(registry)
    metadata = {"name": "pod", "namespace": "default", "ownerReferences": [owner_reference(JOB, job)]}
    registry.create(POD, {"metadata": metadata, "spec": {"containers": [{"name": "a", "image": "x"}]}})
    await recorder.called(1)
    await asyncio.sleep(0)
    calls = len(recorder.calls)
    registry.delete(POD, "default", "pod", grace_period_seconds=0)
    registry.store.compact()
    await recorder.called(calls + 1)


async def test_a_failure_that_lasts_for_days_is_still_tried_again(registry: Registry) -> None:
    worker = runtime._Worker(Recorder(registry))
    worker._failures["default", "job"] = 100_000
    assert worker._after_failure(("default", "job"), RuntimeError("still")) == 60.0


async def test_objects_from_before_the_start_are_seen(registry: Registry) -> None:
    create_job(registry)
    recorder = Recorder(registry)
    running = asyncio.create_task(Manager(registry, [recorder]).run())
    await recorder.called(1)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class OwnsAnything(Recorder):
    owns_custom = True


async def test_a_controller_hears_of_what_it_owns_by_a_definition_made_later(registry: Registry) -> None:
    owner = registry.create(JOB, {**shell_job("true"), "metadata": {"name": "j"}}, "default")
    controller = OwnsAnything(registry)
    running = asyncio.create_task(Manager(registry, [controller]).run())
    await controller.called(1)
    registry.create(CUSTOM_RESOURCE_DEFINITION, definition())
    kind = registry.kinds.find("example.com/v1", "Widget")
    assert kind is not None
    await asyncio.sleep(0.05)
    before = len(controller.calls)
    owned = widget()
    owned["metadata"]["ownerReferences"] = [owner_reference(JOB, owner)]
    registry.create(kind, owned, "default")
    await controller.called(before + 1)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
