from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, TRIAL, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from objects import Object

TRIAL_SPEC: Object = {
    "objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]},
    "primaryContainerName": "main",
    "metricsCollector": {"collector": {"kind": "StdOut"}},
}


def owned(kind: Kind, owner: Object, name: str, spec: Object, **metadata: Any) -> Object:
    references = [owner_reference(kind, owner)]
    meta = {"name": name, "namespace": owner["metadata"]["namespace"], "ownerReferences": references}
    return {"metadata": {**meta, **metadata}, "spec": spec}


@pytest.fixture
def job(registry: Registry) -> Object:
    """A Job of a Trial."""
    return make_job(registry, TRIAL_SPEC)


def make_job(registry: Registry, trial_spec: Object) -> Object:
    metadata = {"name": "trial", "namespace": "default", "labels": {"katib.kubeflow.org/experiment": "exp"}}
    trial = registry.create(TRIAL, {"metadata": metadata, "spec": trial_spec})
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x", "command": ["a"]}]}
    return registry.create(JOB, owned(TRIAL, trial, "trial", {"template": {"spec": pod_spec}}))


def test_other_pods_are_not_touched(registry: Registry) -> None:
    spec = {"containers": [{"name": "main", "image": "repo:5000/x", "args": ["a"]}]}
    pod = registry.create(POD, {"metadata": {"name": "pod", "namespace": "default"}, "spec": spec})
    (main,) = pod["spec"]["containers"]
    assert main["args"] == ["a"]
    assert main["imagePullPolicy"] == "Always"
    assert pod["spec"]["restartPolicy"] == "Always"
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_a_job_gets_kubernetes_defaults_and_its_selector(job: Object) -> None:
    spec = job["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 6)
    uid = job["metadata"]["uid"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"]["job-name"] == "trial"


@pytest.mark.parametrize(
    ("pod_spec", "text"),
    [
        ({"containers": [{"name": "a", "image": "x"}]}, "spec.template.spec.restartPolicy: Required value"),
        ({"restartPolicy": "Always", "containers": [{"name": "a", "image": "x"}]}, 'Unsupported value: "Always"'),
        ({"restartPolicy": "Never", "containers": []}, "spec.template.spec.containers: Required value"),
        ({"restartPolicy": "Never", "containers": [{"name": "a"}]}, "containers[0].image: Required value"),
    ],
)
def test_an_invalid_job_is_a_422(registry: Registry, pod_spec: Object, text: str) -> None:
    body = {"metadata": {"name": "job", "namespace": "default"}, "spec": {"template": {"spec": pod_spec}}}
    with pytest.raises(ApiError) as caught:
        registry.create(JOB, body)
    assert caught.value.code == 422
    assert text in caught.value.message
