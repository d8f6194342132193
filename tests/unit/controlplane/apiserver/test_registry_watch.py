"""Lists, watches and events of the registry."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EVENT,
    EXPERIMENT,
    JOB,
    NAMESPACE,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.store import Store
from objects import experiment
from registries import create, refused


def test_list_filters_and_tells_the_version_to_watch_from(registry: Registry) -> None:
    for name in ("a", "b"):
        create(registry, obj=experiment(name, labels={"n": name}))
    items, version = registry.list(EXPERIMENT, "default", label_selector="n=b")
    assert [item["metadata"]["name"] for item in items] == ["b"]
    assert version == registry.resource_version
    assert registry.list(EXPERIMENT, "other")[0] == []
    assert registry.list(EXPERIMENT, field_selector="metadata.name=a")[0][0]["metadata"]["name"] == "a"


async def watched(registry: Registry, **options: Any) -> list[tuple[str, str, str]]:
    watch = registry.watch(EXPERIMENT, "default", timeout_seconds=0, **options)
    return [
        (event.type, event.object["metadata"].get("name", ""), event.object["metadata"]["resourceVersion"])
        async for event in watch
    ]


async def test_a_watch_continues_a_list_without_gap_or_repetition(registry: Registry) -> None:
    create(registry)
    _, version = registry.list(EXPERIMENT)
    obj = create(registry, obj=experiment("y"))
    obj["spec"]["maxTrialCount"] = 4
    updated = registry.update(EXPERIMENT, obj)
    registry.delete(EXPERIMENT, "default", "y")
    assert await watched(registry, resource_version=version) == [
        ("ADDED", "y", obj["metadata"]["resourceVersion"]),
        ("MODIFIED", "y", updated["metadata"]["resourceVersion"]),
        ("DELETED", "y", registry.resource_version),
    ]


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_from_nowhere_begins_with_what_exists(registry: Registry, version: str) -> None:
    obj = create(registry)
    assert await watched(registry, resource_version=version) == [("ADDED", "x", obj["metadata"]["resourceVersion"])]


async def test_a_watch_sees_one_namespace_only(registry: Registry) -> None:
    registry.create(NAMESPACE, {"metadata": {"name": "other"}})
    registry.create(EXPERIMENT, experiment("elsewhere"), "other")
    assert await watched(registry) == []


async def test_bookmarks_tell_how_far_the_watch_has_read(registry: Registry) -> None:
    create(registry)
    version = registry.resource_version
    create(registry, CONFIG_MAP, {"metadata": {"name": "c"}})
    events = await watched(registry, resource_version=version, bookmarks=True)
    assert events == [("BOOKMARK", "", registry.resource_version)]
    assert int(events[0][2]) > int(version)


async def test_a_watch_from_the_forgotten_past_is_expired(registry: Registry) -> None:
    old = create(registry)["metadata"]["resourceVersion"]
    create(registry, obj=experiment("y"))
    registry.store.compact()
    error = refused(registry.watch, EXPERIMENT, resource_version=old)
    assert (error.code, error.reason) == (410, "Expired")
    assert error.message == f"too old resource version: {old} ({registry.resource_version})"
    assert refused(registry.watch, EXPERIMENT, resource_version="abc").code == 400


async def test_a_reader_that_falls_behind_is_expired(admission: Any, clock: Any) -> None:
    registry = Registry(Store(history_limit=3), admission, clock)
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    watch = registry.watch(EXPERIMENT, resource_version=registry.resource_version)
    for index in range(9):
        create(registry, obj=experiment(f"x{index}"))
    with pytest.raises(ApiError) as raised:
        await anext(watch)
    assert raised.value.code == 410


async def test_a_change_is_serialised_once_for_all_watchers(registry: Registry) -> None:
    watches = [registry.watch(EXPERIMENT) for _ in range(3)]
    create(registry)
    lines = [(await anext(watch)).line for watch in watches]
    assert lines[0] is lines[1]
    assert lines[1] is lines[2]


async def test_a_watcher_may_change_what_it_gets(registry: Registry) -> None:
    watches = [registry.watch(EXPERIMENT) for _ in range(2)]
    create(registry)
    first, second = [await anext(watch) for watch in watches]
    first.object["spec"].clear()
    assert second.object["spec"]
    assert registry.get(EXPERIMENT, "default", "x")["spec"]


async def test_a_stopped_watch_ends(registry: Registry) -> None:
    watch = registry.watch(EXPERIMENT)
    create(registry)
    assert (await anext(watch)).type == "ADDED"
    watch.stop()
    assert [event async for event in watch] == []


def test_repeated_events_are_counted_in_one_object(registry: Registry, clock: Any) -> None:
    obj = create(registry)
    for _ in range(3):
        registry.record_event(obj, "Normal", "Created", "it is there")
        clock.now += timedelta(minutes=1)
    registry.record_event(obj, "Warning", "Failed", "it is not")
    events = {event["reason"]: event for event in registry.list(EVENT, "default")[0]}
    assert events["Created"]["count"] == 3
    assert events["Created"]["firstTimestamp"] == "2026-11-22T09:00:00Z"
    assert events["Created"]["lastTimestamp"] == "2026-11-22T09:02:00Z"
    assert events["Created"]["involvedObject"]["uid"] == obj["metadata"]["uid"]
    assert events["Failed"]["count"] == 1
    assert registry.list(EVENT, field_selector="involvedObject.name=x,type=Warning")[0][0]["reason"] == "Failed"


def test_events_are_forgotten_after_an_hour(registry: Registry, clock: Any) -> None:
    obj = create(registry)
    registry.record_event(obj, "Normal", "Old", "m")
    clock.now += timedelta(minutes=61)
    registry.record_event(obj, "Normal", "New", "m")
    assert [event["reason"] for event in registry.list(EVENT)[0]] == ["New"]


def test_jobs_have_generations_and_config_maps_do_not(registry: Registry) -> None:
    assert create(registry, JOB, {"metadata": {"name": "j"}})["metadata"]["generation"] == 1
    assert "generation" not in create(registry, CONFIG_MAP, {"metadata": {"name": "c"}})["metadata"]
