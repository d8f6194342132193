"""Owners and dependents: background, foreground and orphaning deletion, and namespaces."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import internal_error
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    EXPERIMENT,
    JOB,
    NAMESPACE,
    POD,
    TRIAL,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.garbage_collector import GarbageCollector
from airflow_llmtune.controlplane.controllers.namespace import NamespaceController
from airflow_llmtune.controlplane.store import Store
from definitions import definition, widget
from registries import AdmitAll
from waiting import eventually


@pytest.fixture
def registry() -> Registry:
    registry = Registry(Store(), AdmitAll())
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    return registry


@pytest.fixture
def collector(registry: Registry) -> GarbageCollector:
    collector = GarbageCollector(registry)
    collector.collect()
    return collector


def reference(kind: Kind, owner: dict[str, Any], **fields: Any) -> dict[str, Any]:
    metadata = owner["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": metadata["name"],
        "uid": metadata["uid"],
        **fields,
    }


def make(registry: Registry, kind: Kind, name: str, *owners: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    obj = {"metadata": {"name": name, "ownerReferences": list(owners), **metadata}}
    return registry.create(kind, obj, "default")


def exists(registry: Registry, kind: Kind, name: str) -> bool:
    return registry.find(kind, "default", name) is not None


def family(registry: Registry) -> None:
    """An Experiment, its Trial, the Trial's Job and the Job's Pod."""
    experiment = make(registry, EXPERIMENT, "e")
    trial = make(registry, TRIAL, "t", reference(EXPERIMENT, experiment, blockOwnerDeletion=True))
    job = make(registry, JOB, "j", reference(TRIAL, trial, blockOwnerDeletion=True))
    make(registry, POD, "p", reference(JOB, job, blockOwnerDeletion=True))


FAMILY = ((EXPERIMENT, "e"), (TRIAL, "t"), (JOB, "j"), (POD, "p"))


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_a_deletion_reaches_all_generations(registry: Registry, collector: GarbageCollector, propagation: Any) -> None:
    family(registry)
    registry.delete(EXPERIMENT, "default", "e", propagation=propagation)
    collector.collect()
    assert [name for kind, name in FAMILY if exists(registry, kind, name)] == []


def test_a_collector_that_starts_late_finds_what_is_ownerless(registry: Registry) -> None:
    family(registry)
    registry.delete(TRIAL, "default", "t")
    GarbageCollector(registry).collect()
    assert [name for kind, name in FAMILY if exists(registry, kind, name)] == ["e"]


def test_foreground_waits_for_dependents_that_block(registry: Registry, collector: GarbageCollector) -> None:
    job = make(registry, JOB, "j")
    make(registry, POD, "p", reference(JOB, job, blockOwnerDeletion=True), finalizers=["a/b"])
    registry.delete(JOB, "default", "j", propagation="Foreground")
    collector.collect()
    assert exists(registry, JOB, "j")
    assert "deletionTimestamp" in registry.get(POD, "default", "p")["metadata"]
    registry.patch(POD, "default", "p", MERGE, {"metadata": {"finalizers": None}})
    collector.collect()
    assert not exists(registry, JOB, "j")


def test_foreground_does_not_wait_for_dependents_that_do_not_block(
    registry: Registry, collector: GarbageCollector
) -> None:
    job = make(registry, JOB, "j")
    make(registry, POD, "p", reference(JOB, job), finalizers=["a/b"])
    registry.delete(JOB, "default", "j", propagation="Foreground")
    collector.collect()
    assert not exists(registry, JOB, "j")
    assert "deletionTimestamp" in registry.get(POD, "default", "p")["metadata"]


def test_orphans_lose_the_reference_and_stay(registry: Registry, collector: GarbageCollector) -> None:
    family(registry)
    registry.delete(JOB, "default", "j", propagation="Orphan")
    collector.collect()
    assert not exists(registry, JOB, "j")
    assert "ownerReferences" not in registry.get(POD, "default", "p")["metadata"]


def test_an_owner_of_the_same_name_but_another_uid_is_absent(registry: Registry, collector: GarbageCollector) -> None:
    old = make(registry, JOB, "j")
    make(registry, POD, "p", reference(JOB, old))
    registry.delete(JOB, "default", "j")
    make(registry, JOB, "j")
    collector.collect()
    assert not exists(registry, POD, "p")
    assert exists(registry, JOB, "j")


def test_one_owner_that_lives_is_enough(registry: Registry, collector: GarbageCollector) -> None:
    first, second = make(registry, JOB, "j1"), make(registry, JOB, "j2")
    make(registry, CONFIG_MAP, "c", reference(JOB, first), reference(JOB, second))
    registry.delete(JOB, "default", "j1")
    collector.collect()
    owners = registry.get(CONFIG_MAP, "default", "c")["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["j2"]
    registry.delete(JOB, "default", "j2", propagation="Foreground")
    collector.collect()
    assert not exists(registry, CONFIG_MAP, "c")
    assert not exists(registry, JOB, "j2")


def test_a_dependent_of_an_owner_that_never_was_goes(registry: Registry, collector: GarbageCollector) -> None:
    make(registry, POD, "p", {"apiVersion": "batch/v1", "kind": "Job", "name": "ghost", "uid": "1"})
    collector.collect()
    assert not exists(registry, POD, "p")


def test_an_owner_of_a_kind_that_is_not_served_counts_as_present(
    registry: Registry, collector: GarbageCollector
) -> None:
    make(registry, POD, "p", {"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": "r", "uid": "1"})
    collector.collect()
    assert exists(registry, POD, "p")


def test_owners_are_looked_up_in_the_dependents_namespace(registry: Registry, collector: GarbageCollector) -> None:
    registry.create(NAMESPACE, {"metadata": {"name": "other"}})
    job = make(registry, JOB, "j")
    registry.create(POD, {"metadata": {"name": "p", "ownerReferences": [reference(JOB, job)]}}, "other")
    collector.collect()
    assert registry.find(POD, "other", "p") is None


def test_a_foreground_deletion_goes_on_when_a_dependent_is_given_away(
    registry: Registry, collector: GarbageCollector
) -> None:
    job = make(registry, JOB, "j")
    make(registry, POD, "p", reference(JOB, job, blockOwnerDeletion=True), finalizers=["a/b"])
    registry.delete(JOB, "default", "j", propagation="Foreground")
    collector.collect()
    registry.patch(POD, "default", "p", MERGE, {"metadata": {"ownerReferences": None}})
    collector.collect()
    assert not exists(registry, JOB, "j")


def test_the_collector_recovers_when_it_was_too_slow() -> None:
    registry = Registry(Store(history_limit=2), AdmitAll())
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    collector = GarbageCollector(registry)
    collector.collect()
    family(registry)
    for index in range(20):
        make(registry, TRIAL, f"more-{index}")
    registry.delete(EXPERIMENT, "default", "e")
    collector.collect()
    assert [name for kind, name in FAMILY if exists(registry, kind, name)] == []


async def test_a_deleted_namespace_is_emptied_and_then_goes(registry: Registry) -> None:
    make(registry, CONFIG_MAP, "c")
    make(registry, POD, "p", finalizers=["a/b"])
    controller = NamespaceController(registry)
    assert await controller.reconcile("", "default") is None
    registry.delete(NAMESPACE, None, "default")
    assert await controller.reconcile("", "default") is not None
    assert not exists(registry, CONFIG_MAP, "c")
    registry.patch(POD, "default", "p", MERGE, {"metadata": {"finalizers": None}})
    assert await controller.reconcile("", "default") is None
    assert registry.find(NAMESPACE, None, "default") is None


async def test_others_are_answered_while_a_large_namespace_is_emptied(registry: Registry) -> None:
    for index in range(200):
        make(registry, CONFIG_MAP, f"c{index}")
    registry.delete(NAMESPACE, None, "default")
    emptying = asyncio.create_task(NamespaceController(registry).reconcile("", "default"))
    await asyncio.sleep(0)
    left = len(registry.list(CONFIG_MAP)[0])
    assert 0 < left < 200
    await emptying
    assert registry.find(NAMESPACE, None, "default") is None


def test_an_object_that_cannot_be_deleted_does_not_keep_others(
    registry: Registry, collector: GarbageCollector, caplog: pytest.LogCaptureFixture
) -> None:
    owner = make(registry, EXPERIMENT, "x")
    odd = {"metadata": {"name": "odd", "ownerReferences": [reference(EXPERIMENT, owner)]}}
    registry.create(POD, {**odd, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": "soon"}}, "default")
    make(registry, CONFIG_MAP, "plain", reference(EXPERIMENT, owner))
    registry.delete(EXPERIMENT, "default", "x")
    collector.collect()
    assert registry.find(CONFIG_MAP, "default", "plain") is None
    assert "collecting Pod default/odd failed" in caplog.text


def test_replacing_a_namespace_does_not_let_it_go_before_it_is_empty(registry: Registry) -> None:
    make(registry, CONFIG_MAP, "c")
    registry.update(NAMESPACE, {"metadata": {"name": "default"}})
    assert "deletionTimestamp" in registry.delete(NAMESPACE, None, "default")["metadata"]
    assert registry.find(NAMESPACE, None, "default") is not None


def test_objects_of_a_definition_own_and_are_owned(registry: Registry, collector: GarbageCollector) -> None:
    registry.create(CUSTOM_RESOURCE_DEFINITION, definition())
    collector.collect()
    kind = registry.kinds.find("example.com/v1", "Widget")
    assert kind is not None
    owner = registry.create(kind, widget(), "default")
    make(registry, CONFIG_MAP, "c", reference(kind, owner))
    collector.collect()
    assert exists(registry, CONFIG_MAP, "c")
    registry.delete(kind, "default", "w")
    collector.collect()
    assert not exists(registry, CONFIG_MAP, "c")


class Stubborn(Registry):
    """Refuses the first deletions."""

    refusals = 2

    def delete(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.refusals:
            self.refusals -= 1
            raise internal_error("the disk is full")
        return super().delete(*args, **kwargs)


async def test_what_could_not_be_deleted_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    registry = Stubborn(Store(), AdmitAll())
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    make(registry, POD, "p", {"apiVersion": "batch/v1", "kind": "Job", "name": "ghost", "uid": "1"})
    running = asyncio.create_task(GarbageCollector(registry).run())
    await eventually(lambda: not exists(registry, POD, "p"))
    assert caplog.text.count("collecting Pod default/p failed") == 2
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_deleted_namespace_takes_the_objects_of_definitions_along(registry: Registry) -> None:
    registry.create(CUSTOM_RESOURCE_DEFINITION, definition())
    kind = registry.kinds.find("example.com/v1", "Widget")
    assert kind is not None
    registry.create(kind, widget(), "default")
    registry.delete(NAMESPACE, None, "default")
    assert await NamespaceController(registry).reconcile("", "default") is None
    assert registry.find(kind, "default", "w") is None
    assert registry.find(NAMESPACE, None, "default") is None
