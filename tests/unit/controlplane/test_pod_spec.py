"""What a pod's spec may not say, above all names and paths that would lead out of the pod's own folder."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, PYTORCH_JOB
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from registries import refused


def pod(container: Object | None = None, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "x", "command": ["a"], **(container or {})}]
    return {"metadata": {"name": "pod", "namespace": "default"}, "spec": {"containers": containers, **spec}}


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (pod({"name": "../x"}), "spec.containers[0].name: Invalid value"),
        (pod({"name": "x" * 64}), "spec.containers[0].name: Invalid value"),
        (pod(restartPolicy="Once"), 'spec.restartPolicy: Unsupported value: "Once"'),
        (pod({"image": ""}), "spec.containers[0].image: Required value"),
        (pod(initContainers=[{"image": "x"}]), "spec.initContainers[0].name: Required value"),
        (
            pod(initContainers=[{"name": "main", "image": "x"}]),
            'spec.containers[0].name: Duplicate value: "main"',
        ),
        (pod(volumes=[{"name": "../../x", "emptyDir": {}}]), "spec.volumes[0].name: Invalid value"),
        (pod(volumes=[{"name": "v"}, {"name": "v"}]), 'spec.volumes[1].name: Duplicate value: "v"'),
        (
            pod(volumes=[{"name": "v", "secret": {"items": [{"key": "k", "path": "a/../../b"}]}}]),
            "spec.volumes[0].secret.items[0].path: Invalid value",
        ),
        (
            pod({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "/etc"}]}),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value",
        ),
        (
            pod({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": ".."}]}),
            "must not contain '..'",
        ),
        (pod({"volumeMounts": [{"name": "v"}]}), "spec.containers[0].volumeMounts[0].mountPath: Required value"),
        (pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds: Invalid value"),
        (
            pod({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}}),
            'resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1',
        ),
        (
            pod({"resources": {"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 1}}}),
            'spec.containers[0].resources.requests: Invalid value: "1": must be equal to nvidia.com/gpu limit of 2',
        ),
        (
            pod({"resources": {"requests": {"nvidia.com/gpu": 1}}}),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            pod({"resources": {"limits": {"nvidia.com/gpu": "500m"}}}),
            'spec.containers[0].resources.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer',
        ),
        (
            pod({"resources": {"limits": {"memory": "1GB"}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (pod({"resources": {"requests": {"memory": "-1"}}}), "must be greater than or equal to 0"),
    ],
)
def test_a_pod_that_breaks_a_rule_is_a_422(registry: Registry, obj: Object, text: str) -> None:
    error = refused(registry.create, POD, obj)
    assert (error.code, error.reason) == (422, "Invalid")
    assert text in error.message


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (pod(terminationGracePeriodSeconds="30s"), "cannot unmarshal string"),
        (pod(containers="x"), "cannot unmarshal string"),
        (pod(containers=[None]), "cannot unmarshal null"),
        (pod({"env": [{"name": "A", "value": 1}]}), "cannot unmarshal number 1"),
        (pod(volumes=["v"]), "cannot unmarshal string"),
        (pod({"resources": {"requests": "much"}}), "cannot unmarshal string"),
    ],
)
def test_a_field_of_the_wrong_type_is_a_400(registry: Registry, obj: Object, text: str) -> None:
    error = refused(registry.create, POD, obj)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert error.message.startswith('Pod in version "v1" cannot be handled as a Pod: json: ')
    assert text.removesuffix(" 1") in error.message


def test_nulls_are_absent_fields(registry: Registry) -> None:
    made = registry.create(POD, pod({"env": None}, restartPolicy=None, initContainers=None))
    assert made["spec"]["restartPolicy"] == "Always"
    assert "initContainers" not in made["spec"]
    assert "env" not in made["spec"]["containers"][0]


def test_a_jobs_template_is_read_as_strictly(registry: Registry) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "../x", "image": "x"}]}}
    job = {"metadata": {"name": "job", "namespace": "default"}, "spec": {"template": template}}
    with pytest.raises(ApiError, match=r"spec.template.spec.containers\[0\].name: Invalid value"):
        registry.create(JOB, job)
    with pytest.raises(ApiError, match='Job in version "v1" cannot be handled as a Job'):
        registry.create(JOB, job | {"spec": {"template": template, "parallelism": "2"}})


@pytest.mark.parametrize(
    ("container", "code", "text"),
    [
        ({"env": [{"name": "A", "value": 1}]}, 422, "env[0].value in body must be of type string"),
        ({"volumeMounts": [{"name": "v"}]}, 422, "pytorchReplicaSpecs[Master].template.spec.containers[0]"),
    ],
)
def test_the_pods_of_a_pytorch_job_are_checked_with_it(
    registry: Registry, container: Object, code: int, text: str
) -> None:
    template = {"spec": pod({"name": "pytorch", **container})["spec"]}
    master = {"replicas": 1, "restartPolicy": "Never", "template": template}
    job = {"metadata": {"name": "job", "namespace": "default"}, "spec": {"pytorchReplicaSpecs": {"Master": master}}}
    with pytest.raises(ApiError) as raised:
        registry.create(PYTORCH_JOB, job)
    assert raised.value.code == code
    assert text in raised.value.message
