"""Kubernetes' rules for updating and patching: versions, generations, the status subresource."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import denied_by_webhook
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    EXPERIMENT,
)
from airflow_llmtune.controlplane.apiserver.patch import JSON, MERGE, STRATEGIC
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import experiment
from registries import create, refused


def test_generation_counts_changes_of_the_spec_only(registry: Registry) -> None:
    obj = create(registry)
    obj["spec"]["maxTrialCount"] = 4
    obj = registry.update(EXPERIMENT, obj)
    assert obj["metadata"]["generation"] == 2
    obj["metadata"]["labels"] = {"a": "b"}
    obj = registry.update(EXPERIMENT, obj)
    assert obj["metadata"]["generation"] == 2
    obj["status"] = {"trials": 1}
    obj = registry.update_status(EXPERIMENT, obj)
    assert obj["metadata"]["generation"] == 2


def test_every_write_moves_the_resource_version_up(registry: Registry) -> None:
    obj = create(registry)
    versions = [int(obj["metadata"]["resourceVersion"])]
    for count in (4, 5):
        obj["spec"]["maxTrialCount"] = count
        obj = registry.update(EXPERIMENT, obj)
        versions.append(int(obj["metadata"]["resourceVersion"]))
    assert all(before < after for before, after in itertools.pairwise(versions))


def test_writing_the_same_again_changes_nothing(registry: Registry) -> None:
    obj = create(registry)
    assert registry.update(EXPERIMENT, obj) == obj
    assert registry.update_status(EXPERIMENT, obj) == obj
    assert registry.patch(EXPERIMENT, "default", "x", MERGE, {"spec": {"maxTrialCount": 3}}) == obj
    assert registry.resource_version == obj["metadata"]["resourceVersion"]


def test_a_stale_update_is_a_conflict(registry: Registry) -> None:
    stale = create(registry)
    registry.patch(EXPERIMENT, "default", "x", MERGE, {"spec": {"maxTrialCount": 4}})
    for write in (registry.update, registry.update_status):
        error = refused(write, EXPERIMENT, stale)
        assert (error.code, error.reason) == (409, "Conflict")
        assert error.message == (
            'Operation cannot be fulfilled on experiments.kubeflow.org "x": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )


def test_only_built_in_kinds_may_be_updated_without_a_version(registry: Registry) -> None:
    create(registry)
    create(registry, CONFIG_MAP, {"metadata": {"name": "c"}})
    error = refused(registry.update, EXPERIMENT, experiment(namespace="default"))
    assert error.message == (
        'Experiment.kubeflow.org "x" is invalid: metadata.resourceVersion: Invalid value: 0: '
        "must be specified for an update"
    )
    changed = {"metadata": {"name": "c", "namespace": "default"}, "data": {"a": "b"}}
    assert registry.update(CONFIG_MAP, changed)["data"] == {"a": "b"}


def test_an_update_of_what_is_gone_or_was_made_anew_is_refused(registry: Registry) -> None:
    old = create(registry)
    registry.delete(EXPERIMENT, "default", "x")
    assert refused(registry.update, EXPERIMENT, old).message == 'experiments.kubeflow.org "x" not found'
    new = create(registry)
    error = refused(registry.update, EXPERIMENT, old)
    assert error.reason == "Conflict"
    assert (
        f"UID in precondition: {old['metadata']['uid']}, UID in object meta: {new['metadata']['uid']}" in error.message
    )


def test_the_servers_own_metadata_cannot_be_changed(registry: Registry) -> None:
    obj = create(registry)
    before = dict(obj["metadata"])
    obj["metadata"] |= {"creationTimestamp": "2000-01-01T00:00:00Z", "generation": 7, "deletionTimestamp": "x"}
    obj["metadata"]["labels"] = {"a": "b"}
    after = registry.update(EXPERIMENT, obj)["metadata"]
    assert {**after, "resourceVersion": None} == {**before, "labels": {"a": "b"}, "resourceVersion": None}


def test_update_ignores_the_status_and_update_status_all_but_it(registry: Registry, admission: Any) -> None:
    obj = create(registry)
    obj["status"] = {"trials": 1}
    assert "status" not in registry.update(EXPERIMENT, obj)
    admission.calls.clear()
    written = registry.update_status(EXPERIMENT, obj | {"spec": {}})
    assert (written["spec"]["maxTrialCount"], written["status"]) == (3, {"trials": 1})
    assert admission.calls == []
    written["spec"]["maxTrialCount"] = 5
    del written["status"]
    assert registry.update(EXPERIMENT, written)["status"] == {"trials": 1}


def test_a_refused_update_changes_nothing(registry: Registry, admission: Any) -> None:
    obj = create(registry)
    admission.refusal = denied_by_webhook("w", "no")
    changed = {**obj, "spec": {"maxTrialCount": 9}}
    assert refused(registry.update, EXPERIMENT, changed).code == 400
    assert registry.get(EXPERIMENT, "default", "x") == obj


def test_a_dry_run_update_is_answered_but_not_kept(registry: Registry) -> None:
    obj = create(registry)
    changed = registry.update(EXPERIMENT, {**obj, "spec": {"maxTrialCount": 9}}, dry_run=True)
    assert (changed["spec"]["maxTrialCount"], changed["metadata"]["generation"]) == (9, 2)
    assert registry.get(EXPERIMENT, "default", "x") == obj


def test_patches_go_through_admission_and_count_generations(registry: Registry, admission: Any) -> None:
    create(registry)
    admission.calls.clear()
    obj = registry.patch(EXPERIMENT, "default", "x", JSON, [{"op": "add", "path": "/spec/a", "value": 1}])
    assert (obj["spec"]["a"], obj["metadata"]["generation"]) == (1, 2)
    assert admission.calls == [("UPDATE", "Experiment", True, "default")]


def test_a_status_patch_touches_the_status_only(registry: Registry) -> None:
    create(registry)
    patch = {"status": {"trials": 1}, "spec": {"maxTrialCount": 9}}
    obj = registry.patch(EXPERIMENT, "default", "x", MERGE, patch, subresource="status")
    assert (obj["status"], obj["spec"]["maxTrialCount"]) == ({"trials": 1}, 3)
    obj = registry.patch(EXPERIMENT, "default", "x", MERGE, patch)
    assert (obj["status"], obj["spec"]["maxTrialCount"]) == ({"trials": 1}, 9)


def test_a_patch_may_carry_a_version_that_must_be_current(registry: Registry) -> None:
    obj = create(registry)
    version = obj["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "spec": {"maxTrialCount": 4}}
    registry.patch(EXPERIMENT, "default", "x", MERGE, patch)
    assert refused(registry.patch, EXPERIMENT, "default", "x", MERGE, patch).reason == "Conflict"


@pytest.mark.parametrize("metadata", [{"name": "y"}, {"namespace": "other"}])
def test_a_patch_cannot_rename(registry: Registry, metadata: dict[str, str]) -> None:
    create(registry)
    assert refused(registry.patch, EXPERIMENT, "default", "x", MERGE, {"metadata": metadata}).code == 400


def test_an_unknown_format_and_a_missing_object_are_refused(registry: Registry) -> None:
    create(registry)
    assert refused(registry.patch, EXPERIMENT, "default", "x", STRATEGIC, {}).code == 415
    assert refused(registry.patch, EXPERIMENT, "default", "y", MERGE, {}).code == 404


def test_what_python_takes_for_equal_may_be_a_change(registry: Registry) -> None:
    create(registry)
    changed = registry.patch(EXPERIMENT, "default", "x", MERGE, {"spec": {"maxTrialCount": 1}})
    again = registry.patch(EXPERIMENT, "default", "x", MERGE, {"spec": {"maxTrialCount": True}})
    assert (again["spec"]["maxTrialCount"], again["metadata"]["generation"]) == (True, 3)
    assert again["metadata"]["resourceVersion"] != changed["metadata"]["resourceVersion"]
