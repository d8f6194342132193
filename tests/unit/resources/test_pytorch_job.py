from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import pytorch_job
from airflow_llmtune.resources.problems import Problems

JSON = dict[str, Any]
TEMPLATE: JSON = {"spec": {"containers": [{"name": "pytorch", "image": "x"}]}}
LIMITS: JSON = {"active_deadline_seconds": 60, "ttl_seconds_after_finished": 120}


def made(num_nodes: int = 2) -> JSON:
    return pytorch_job.to_manifest(
        copy.deepcopy(TEMPLATE), num_nodes=num_nodes, num_procs_per_node=2, metadata={"name": "x"}, **LIMITS
    )


def check(manifest: Any) -> list[tuple[str, str]]:
    problems = Problems()
    pytorch_job.check_manifest(manifest, problems)
    return [(error.argument, error.rule) for error in problems.errors]


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_what_we_make_passes_our_own_preflight(nodes: int) -> None:
    assert check(made(nodes)) == []


def test_a_single_node_keeps_its_finished_pod_and_several_stop_together() -> None:
    assert made(1)["spec"]["runPolicy"] == {
        "cleanPodPolicy": "None",
        "backoffLimit": 0,
        "activeDeadlineSeconds": 60,
        "ttlSecondsAfterFinished": 120,
    }
    assert made(2)["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"
    for replica in made(2)["spec"]["pytorchReplicaSpecs"].values():
        assert replica["restartPolicy"] == "Never"


REPLICAS = "spec.pytorchReplicaSpecs"
CONTAINERS = f"{REPLICAS}.Master.template.spec.containers"


@pytest.mark.parametrize(
    ("path", "value", "argument", "rule"),
    [
        ("apiVersion", "batch/v1", "apiVersion", "is not kubeflow.org/v1"),
        ("kind", "Job", "kind", "is not PyTorchJob"),
        ("metadata.name", "1x", "metadata.name", "starting with a letter"),
        ("metadata.name", "a.b", "metadata.name", "is not a name"),
        ("metadata.name", "x" * 60, "metadata.name", "at most 53"),
        ("metadata", ["x"], "metadata", "is not a mapping"),
        ("metadata.labels", "x", "metadata.labels", "is not a mapping"),
        ("metadata.labels", {"team": 7}, "metadata.labels.team", "is no pair of texts"),
        ("metadata.annotations", {"on": True}, "metadata.annotations.on", "is no pair of texts"),
        (REPLICAS, {}, REPLICAS, "is missing or empty"),
        (f"{REPLICAS}.Launcher", {}, f"{REPLICAS}.Launcher", "is not known"),
        (f"{REPLICAS}.Master.replicas", None, f"{REPLICAS}.Master.replicas", "is not 1"),
        (f"{REPLICAS}.Master.replicas", 2, f"{REPLICAS}.Master.replicas", "is not 1"),
        (f"{REPLICAS}.Worker.replicas", 0, f"{REPLICAS}.Worker.replicas", "is less than 1"),
        (f"{REPLICAS}.Master.restartPolicy", "never", f"{REPLICAS}.Master.restartPolicy", "is not known"),
        (CONTAINERS, [], CONTAINERS, "has no container called pytorch"),
        (CONTAINERS, [{"name": "main", "image": "x"}], CONTAINERS, "has no container called pytorch"),
        (CONTAINERS, [{"name": "pytorch"}], CONTAINERS, "has no image"),
        ("spec.nprocPerNode", "two", "spec.nprocPerNode", "is not a number of processes"),
        ("spec.nprocPerNode", 2, "spec.nprocPerNode", "is not text"),
    ],
)
def test_what_the_webhook_would_refuse_is_named(path: str, value: Any, argument: str, rule: str) -> None:
    found = check(changed(path, value))
    assert [where for where, _ in found] == [argument], found
    assert rule in found[0][1]


def changed(path: str, value: Any) -> JSON:
    manifest = made()
    *parents, last = path.split(".")
    node = manifest
    for key in parents:
        node = node[key]
    node[last] = value
    return manifest


def test_elastic_training_needs_workers() -> None:
    manifest = made(1)
    manifest["spec"]["elasticPolicy"] = {"minReplicas": 1}
    assert [argument for argument, _ in check(manifest)] == ["spec.elasticPolicy"]


@pytest.mark.parametrize("given_manifest", [None, [], {}, {"spec": []}])
def test_what_is_no_manifest_is_one_mistake(given_manifest: Any) -> None:
    assert [argument for argument, _ in check(given_manifest)] == [REPLICAS]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.sampled_from(
        [
            "metadata",
            "metadata.name",
            "metadata.labels",
            "spec",
            REPLICAS,
            f"{REPLICAS}.Master",
            CONTAINERS,
            "spec.nprocPerNode",
        ]
    ),
    json_values,
)
def test_a_manifest_of_any_shape_is_explained_and_never_crashes(path: str, value: Any) -> None:
    for argument, rule in check(changed(path, value)):
        assert argument
        assert rule


@pytest.mark.parametrize(
    ("conditions", "phase", "reason"),
    [
        ([], "Pending", ""),
        ([("Created", "True")], "Pending", "PyTorchJobCreated"),
        ([("Created", "True"), ("Running", "True")], "Running", "PyTorchJobRunning"),
        ([("Created", "True"), ("Restarting", "True")], "Running", "PyTorchJobRestarting"),
        ([("Created", "True"), ("Running", "False"), ("Suspended", "True")], "Pending", "PyTorchJobSuspended"),
        ([("Created", "True"), ("Running", "False"), ("Succeeded", "True")], "Succeeded", "PyTorchJobSucceeded"),
        ([("Created", "True"), ("Running", "False"), ("Failed", "True")], "Failed", "PyTorchJobFailed"),
    ],
)
def test_the_outcome_of_a_pytorch_job(conditions: list[tuple[str, str]], phase: str, reason: str) -> None:
    listed = [{"type": type_, "status": value, "reason": f"PyTorchJob{type_}"} for type_, value in conditions]
    outcome = pytorch_job.read_outcome({"status": {"conditions": listed}})
    assert (outcome.phase, outcome.reason) == (phase, reason)


def test_a_jobs_pods_carry_its_name() -> None:
    assert pytorch_job.pod_selector("x") == "training.kubeflow.org/job-name=x"
