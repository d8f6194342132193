"""Kubernetes' rules for deleting: finalizers, preconditions, propagation, grace periods."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    EXPERIMENT,
    NAMESPACE,
    POD,
)
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import experiment
from registries import create, refused


def test_delete_removes_at_once_what_nothing_holds(registry: Registry) -> None:
    create(registry)
    registry.delete(EXPERIMENT, "default", "x")
    assert refused(registry.get, EXPERIMENT, "default", "x").reason == "NotFound"
    assert refused(registry.delete, EXPERIMENT, "default", "x").reason == "NotFound"


def test_a_finalizer_holds_until_it_is_removed(registry: Registry, clock: Any) -> None:
    create(registry, obj=experiment(finalizers=["a/b", "c/d"]))
    clock.now += timedelta(seconds=5)
    marked = registry.delete(EXPERIMENT, "default", "x")
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-22T09:00:05Z"
    clock.now += timedelta(seconds=5)
    assert registry.delete(EXPERIMENT, "default", "x") == marked
    marked["metadata"]["finalizers"] = ["c/d"]
    marked = registry.update(EXPERIMENT, marked)
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-22T09:00:05Z"
    registry.patch(EXPERIMENT, "default", "x", MERGE, {"metadata": {"finalizers": None}})
    assert registry.find(EXPERIMENT, "default", "x") is None


def test_no_finalizer_can_be_added_to_what_is_being_deleted(registry: Registry) -> None:
    create(registry, obj=experiment(finalizers=["a/b"]))
    marked = registry.delete(EXPERIMENT, "default", "x")
    marked["metadata"]["finalizers"].append("c/d")
    error = refused(registry.update, EXPERIMENT, marked)
    assert error.code == 422
    assert 'found new finalizers []string{"c/d"}' in error.message


def test_preconditions_of_a_delete(registry: Registry) -> None:
    obj = create(registry)
    uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
    for wrong in ({"uid": "other"}, {"resource_version": "1"}):
        error = refused(registry.delete, EXPERIMENT, "default", "x", **wrong)
        assert (error.code, error.reason) == (409, "Conflict")
        assert "Precondition failed" in error.message
    registry.delete(EXPERIMENT, "default", "x", uid=uid, resource_version=version)
    assert registry.find(EXPERIMENT, "default", "x") is None


@pytest.mark.parametrize(("propagation", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
def test_other_propagations_wait_for_the_garbage_collector(
    registry: Registry, propagation: Any, finalizer: str
) -> None:
    create(registry)
    marked = registry.delete(EXPERIMENT, "default", "x", propagation=propagation)
    assert marked["metadata"]["finalizers"] == [finalizer]
    assert "deletionTimestamp" in marked["metadata"]


def test_a_dry_run_delete_deletes_nothing(registry: Registry) -> None:
    obj = create(registry)
    registry.delete(EXPERIMENT, "default", "x", dry_run=True)
    assert registry.get(EXPERIMENT, "default", "x") == obj


def test_deleting_a_namespace_marks_it_until_it_is_emptied(registry: Registry) -> None:
    marked = registry.delete(NAMESPACE, None, "default")
    assert marked["status"] == {"phase": "Terminating"}
    marked["spec"]["finalizers"] = []
    registry.update(NAMESPACE, marked)
    assert registry.find(NAMESPACE, None, "default") is None


def running_pod(registry: Registry, **spec: Any) -> dict[str, Any]:
    pod = create(registry, POD, {"metadata": {"name": "p"}, "spec": {"nodeName": "node", **spec}})
    return registry.update_status(POD, pod | {"status": {"phase": "Running"}})


def test_a_pod_that_runs_gets_its_grace_period(registry: Registry) -> None:
    running_pod(registry, terminationGracePeriodSeconds=7)
    marked = registry.delete(POD, "default", "p")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 7
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-22T09:00:07Z"
    shorter = registry.delete(POD, "default", "p", grace_period_seconds=2)
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 2
    assert registry.delete(POD, "default", "p") == shorter
    registry.delete(POD, "default", "p", grace_period_seconds=0)
    assert registry.find(POD, "default", "p") is None


def test_a_pods_last_finalizer_does_not_cut_its_grace_short(registry: Registry) -> None:
    pod = running_pod(registry)
    registry.patch(POD, "default", "p", MERGE, {"metadata": {"finalizers": ["batch.kubernetes.io/job-tracking"]}})
    registry.delete(POD, "default", "p")
    registry.patch(POD, "default", "p", MERGE, {"metadata": {"finalizers": None}})
    held = registry.get(POD, "default", "p")
    assert held["metadata"]["uid"] == pod["metadata"]["uid"]
    registry.delete(POD, "default", "p", grace_period_seconds=0)
    assert registry.find(POD, "default", "p") is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_done_goes_at_once(registry: Registry, phase: str) -> None:
    pod = running_pod(registry)
    registry.update_status(POD, pod | {"status": {"phase": phase}})
    registry.delete(POD, "default", "p")
    assert registry.find(POD, "default", "p") is None


def test_a_pod_without_a_node_goes_at_once(registry: Registry) -> None:
    create(registry, POD, {"metadata": {"name": "p"}, "spec": {}})
    registry.delete(POD, "default", "p")
    assert registry.find(POD, "default", "p") is None
