from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, PYTORCH_JOB, TRIAL, Kind
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


def make_pod(registry: Registry, job: Object, container: Object, **metadata: Any) -> Object:
    spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", **container}]}
    return registry.create(POD, owned(JOB, job, "pod", spec, **metadata))


@pytest.mark.parametrize(
    ("container", "command", "script"),
    [
        ({"command": ["sh", "-c", "a; b"]}, ["sh", "-c"], "a; b"),
        ({"command": ["bash", "-c"], "args": ["a", "b c"]}, ["bash", "-c"], "a b c"),
        ({"command": ["python", "t.py"], "args": ["--x='1'", "$HOME"]}, ["sh", "-c"], "python t.py --x='1' $HOME"),
        ({"command": ["/bin/sh", "-c", "a"]}, ["sh", "-c"], "/bin/sh -c a"),
    ],
)
def test_words_are_joined_unquoted_and_the_output_is_redirected(
    registry: Registry, job: Object, container: Object, command: list[str], script: str
) -> None:
    main = make_pod(registry, job, container)["spec"]["containers"][0]
    assert main["command"] == command
    assert main["args"] == [f"{script} 1>/var/log/katib/metrics.log 2>&1 && echo completed > /var/log/katib/$$$$.pid"]


def test_the_sidecar_the_volume_and_the_labels_are_added(registry: Registry, job: Object) -> None:
    pod = make_pod(registry, job, {"command": ["run"]}, labels={"own": "label"})
    main, sidecar = pod["spec"]["containers"]
    mount = {"name": "metrics-volume", "mountPath": "/var/log/katib"}
    assert sidecar["name"] == "metrics-logger-and-collector"
    assert sidecar["image"] == "kubeflow/katib/file-metrics-collector:v0.19.0"
    expected = "-t trial -m loss;acc -o-type minimize -s-db katib-db-manager.kubeflow:6789"
    assert sidecar["args"] == f"{expected} -path /var/log/katib/metrics.log -format TEXT".split()
    assert main["volumeMounts"] == sidecar["volumeMounts"] == [mount]
    assert pod["spec"]["volumes"] == [{"name": "metrics-volume", "emptyDir": {}}]
    assert pod["spec"]["shareProcessNamespace"] is True
    assert pod["metadata"]["labels"] == {
        "own": "label",
        "katib.kubeflow.org/experiment": "exp",
        "katib.kubeflow.org/trial": "trial",
    }
    field = {"fieldRef": {"fieldPath": "metadata.labels['katib.kubeflow.org/trial']"}}
    assert main["env"] == [{"name": "KATIB_TRIAL_NAME", "valueFrom": field}]


def test_a_file_collector_leaves_the_output_alone(registry: Registry) -> None:
    path = {"path": "/metrics/out.txt", "format": "TEXT", "kind": "File"}
    source = {"fileSystemPath": path, "filter": {"metricsFormat": ["(a)(b)", "(c)(d)"]}}
    collector = {"collector": {"kind": "File"}, "source": source}
    job = make_job(registry, {**TRIAL_SPEC, "metricsCollector": collector})
    main, sidecar = make_pod(registry, job, {"command": ["run"]})["spec"]["containers"]
    assert main["args"] == ["run && echo completed > /metrics/$$$$.pid"]
    assert sidecar["args"][-4:] == ["-f", "(a)(b);(c)(d)", "-format", "TEXT"]


def test_a_pod_that_is_not_primary_only_gets_labels_and_the_trials_name(registry: Registry) -> None:
    job = make_job(registry, {**TRIAL_SPEC, "primaryPodLabels": {"role": "master"}})
    pod = make_pod(registry, job, {"command": ["run"]}, labels={"role": "worker"})
    (main,) = pod["spec"]["containers"]
    assert main["command"] == ["run"]
    assert main["env"][0]["name"] == "KATIB_TRIAL_NAME"


def test_a_pod_without_the_primary_container_is_refused(registry: Registry) -> None:
    job = make_job(registry, {**TRIAL_SPEC, "primaryContainerName": "trainer"})
    with pytest.raises(ApiError) as caught:
        make_pod(registry, job, {"command": ["run"]})
    assert caught.value.message == (
        'admission webhook "mutator.pod.katib.kubeflow.org" denied the request: Unable to find primary '
        "container trainer in mutated pod containers ['main']"
    )


def test_a_primary_container_without_a_command_is_refused(registry: Registry, job: Object) -> None:
    with pytest.raises(ApiError, match="container main has no command: the entrypoint of image busybox"):
        make_pod(registry, job, {"args": ["run"]})


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


@pytest.mark.parametrize(
    ("name", "replicas", "text"),
    [
        ("1job", {"Master": {"replicas": 1}}, "metadata.name: Invalid value"),
        ("job", {"Master": {}}, "[Master].replicas: Invalid value: null: must be 1"),
        ("job", {"Chief": {"replicas": 1}}, "must be one of [Master Worker]"),
        ("job", {}, "spec.pytorchReplicaSpecs: Required value"),
        ("job", {"Worker": {"template": {"spec": {"containers": [{"name": "x"}]}}}}, "with name pytorch"),
    ],
)
def test_an_invalid_pytorch_job_is_a_403(registry: Registry, name: str, replicas: Object, text: str) -> None:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"pytorchReplicaSpecs": replicas}}
    with pytest.raises(ApiError) as caught:
        registry.create(PYTORCH_JOB, body)
    assert caught.value.code == 403
    assert text in caught.value.message
