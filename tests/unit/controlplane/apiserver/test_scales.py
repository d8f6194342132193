from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.patch import JSON, MERGE, STRATEGIC
from airflow_llmtune.controlplane.apiserver.scales import patched, rescaled, scale_of

Object = dict[str, Any]


def workload(replicas: int = 2) -> Object:
    metadata = {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {}}
    return {"metadata": metadata, "spec": spec, "status": {"replicas": 1}}


def test_a_scale_says_how_many_there_should_be_and_are() -> None:
    assert scale_of(workload()) == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
        "spec": {"replicas": 2},
        "status": {"replicas": 1, "selector": "app=web"},
    }
    assert scale_of(workload(0))["spec"] == {}


@pytest.mark.parametrize(
    ("media_type", "patch"),
    [
        (MERGE, {"spec": {"replicas": 5}}),
        (JSON, [{"op": "replace", "path": "/spec/replicas", "value": 5}]),
    ],
)
def test_a_patch_of_a_scale_changes_the_size_alone(media_type: str, patch: Any) -> None:
    before = workload()
    assert patched(before, media_type, patch) == {**before, "spec": {**before["spec"], "replicas": 5}}


def test_a_scale_without_a_number_means_none() -> None:
    assert rescaled(workload(), {"metadata": {"resourceVersion": "6"}})["metadata"]["resourceVersion"] == "6"
    assert rescaled(workload(), {})["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("scale", "code", "message"),
    [
        ({"spec": {"replicas": -1}}, 422, 'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1'),
        ({"spec": {"replicas": "2"}}, 400, "ScaleSpec.spec.replicas of type int32"),
        ({"spec": {"replicas": True}}, 400, "ScaleSpec.spec.replicas of type int32"),
        ({"spec": [1]}, 400, "must be of type Object"),
    ],
)
def test_a_wrong_scale_is_refused(scale: Object, code: int, message: str) -> None:
    with pytest.raises(ApiError) as raised:
        rescaled(workload(), scale)
    assert raised.value.code == code
    assert message in raised.value.message


def test_only_the_formats_that_need_no_shape_are_taken() -> None:
    with pytest.raises(ApiError) as raised:
        patched(workload(), STRATEGIC, {})
    assert raised.value.code == 415
