from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import train_job
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.runtime_patch import LATEST
from airflow_llmtune.resources.train_job_preflight import check_manifest

JSON = dict[str, Any]
TEMPLATE: JSON = {"spec": {"containers": [{"name": "node", "image": "x", "env": [{"name": "A", "value": "1"}]}]}}


def made() -> JSON:
    return train_job.to_manifest(
        copy.deepcopy(TEMPLATE),
        runtime=train_job.runtime_ref("torch-distributed"),
        version=LATEST,
        num_nodes=2,
        num_procs_per_node=1,
        active_deadline_seconds=60,
        metadata={"name": "x"},
    )


# --- preflight --------------------------------------------------------------------------------------------------


def check(manifest: Any) -> list[tuple[str, str]]:
    problems = Problems()
    check_manifest(manifest, problems)
    return [(error.argument, error.rule) for error in problems.errors]


def changed(path: str, value: Any) -> JSON:
    manifest = made()
    *parents, last = path.split(".")
    node = manifest
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return manifest


def patched(manager: Any, **replicated_job: Any) -> list[JSON]:
    jobs = [replicated_job] if replicated_job else []
    return [{"manager": manager, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}]


def pod_of(**spec: Any) -> JSON:
    return {"spec": {"template": {"spec": spec}}}


VARIABLE = {"name": "A", "value": "1"}
NODE_ENV = [{"name": "node", "env": [VARIABLE]}]
PROXY = {"name": "proxy", "env": [VARIABLE]}
JOBS = "spec.runtimePatches[0].trainingRuntimeSpec.template.spec.replicatedJobs"
TARGET = [{"name": "node"}]
OWN_FIELD = "whose environment has a field of its own"


def test_what_we_make_passes_our_own_preflight() -> None:
    assert check(made()) == []


@pytest.mark.parametrize(
    ("path", "value", "argument", "rule"),
    [
        ("apiVersion", "kubeflow.org/v1", "apiVersion", "is not trainer.kubeflow.org/v1alpha1"),
        ("kind", "PyTorchJob", "kind", "is not TrainJob"),
        ("metadata.name", "1x", "metadata.name", "starting with a letter"),
        ("metadata.name", "a.b", "metadata.name", "is not a name"),
        ("metadata.name", "x" * 64, "metadata.name", "at most 63"),
        ("metadata.labels", {"team": 7}, "metadata.labels.team", "is no pair of texts"),
        ("spec.runtimeRef", None, "spec.runtimeRef.name", "is missing"),
        ("spec.runtimeRef", "torch-distributed", "spec.runtimeRef", "is not a mapping"),
        ("spec.runtimeRef.name", "", "spec.runtimeRef.name", "is missing"),
        ("spec.runtimeRef.kind", "TrainingRuntimes", "spec.runtimeRef.kind", "is not known"),
        ("spec.runtimeRef.apiGroup", "kubeflow.org", "spec.runtimeRef.apiGroup", "is not known"),
        ("spec.trainer", [], "spec.trainer", "is not a mapping"),
        ("spec.trainer.command", "python train.py", "spec.trainer.command", "is not a list"),
        ("spec.trainer.args", ["--steps", 3], "spec.trainer.args[1]", "is not text"),
        ("spec.trainer.numNodes", 0, "spec.trainer.numNodes", "is less than 1"),
        ("spec.trainer.numNodes", "2", "spec.trainer.numNodes", "is not an integer"),
        ("spec.trainer.numProcPerNode", "all", "spec.trainer.numProcPerNode", "is not an integer"),
        ("spec.trainer.numProcPerNode", ["auto"], "spec.trainer.numProcPerNode", "is not an integer"),
        ("spec.trainer.numProcPerNode", 0, "spec.trainer.numProcPerNode", "is less than 1"),
        ("spec.trainer.resourcesPerNode", "1 GPU", "spec.trainer.resourcesPerNode", "is not a mapping"),
        ("spec.trainer.env", {"A": "1"}, "spec.trainer.env", "is not a list"),
        ("spec.trainer.env", [{"name": "A", "value": 1}], "spec.trainer.env[0].value", "is not text"),
        ("spec.trainer.env", [{"value": "1"}], "spec.trainer.env[0].name", "is missing"),
        ("spec.trainer.env", [VARIABLE, VARIABLE], "spec.trainer.env[1].name", "is there twice"),
        ("spec.trainer.env", [{"name": "PET_NNODES"}], "spec.trainer.env.PET_NNODES", "is set by Kubeflow Trainer"),
        ("spec.initializer.model.storageUri", "org/base", "spec.initializer.model.storageUri", "is no URI"),
        ("spec.initializer.dataset.secretRef", {}, "spec.initializer.dataset.secretRef.name", "is missing"),
        ("spec.initializer.model.env", [VARIABLE, VARIABLE], "spec.initializer.model.env[1].name", "is there twice"),
        ("spec.runtimePatches", {}, "spec.runtimePatches", "is not a list"),
        ("spec.runtimePatches", patched(None), "spec.runtimePatches[0].manager", "is no path behind a domain"),
        ("spec.runtimePatches", patched("me"), "spec.runtimePatches[0].manager", "is no path behind a domain"),
        ("spec.runtimePatches", patched("Acme.io/x"), "spec.runtimePatches[0].manager", "is no path behind a domain"),
        ("spec.runtimePatches", patched("a.io/x") * 2, "spec.runtimePatches[1].manager", "is there twice"),
        ("spec.runtimePatches", patched("a.io/x", template={}), f"{JOBS}[0].name", "is missing"),
        ("spec.runtimePatches", patched("a.io/x", name="node", template=pod_of(containers=[PROXY, *NODE_ENV])),
         f"{JOBS}[0].template.spec.template.spec.containers[1].env", OWN_FIELD),
        ("spec.runtimePatches", patched("a.io/x", name="node", template=pod_of(initContainers=[{}])),
         f"{JOBS}[0].template.spec.template.spec.initContainers[0].name", "is missing"),
        ("spec.runtimePatches", patched("a.io/x", name="node", template=pod_of(containers=[PROXY, PROXY])),
         f"{JOBS}[0].template.spec.template.spec.containers[1].name", "is there twice"),
        ("spec.podTemplateOverrides", [{"targetJobs": TARGET, "spec": {"containers": NODE_ENV}}],
         "spec.podTemplateOverrides[0].spec.containers[0].env", OWN_FIELD),
        ("spec.podTemplateOverrides", [{"spec": {}}], "spec.podTemplateOverrides[0].targetJobs", "is missing"),
        ("spec.podSpecOverrides", [{"targetJobs": []}, {"targetJobs": TARGET, "containers": NODE_ENV}],
         "spec.podSpecOverrides[1].containers[0].env", OWN_FIELD),
        ("spec.podSpecOverrides", [{"targetJobs": TARGET}] * 2, "spec.podSpecOverrides[1].targetJobs",
         "is the target of an earlier entry"),
        ("spec.podSpecOverrides", [{"targetJobs": [{}]}], "spec.podSpecOverrides[0].targetJobs[0].name", "is missing"),
        ("spec.activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds", "is less than 1"),
        ("spec.activeDeadlineSeconds", "1h", "spec.activeDeadlineSeconds", "is not an integer"),
        ("spec.managedBy", "me", "spec.managedBy", "is not known"),
    ],
)  # fmt: skip
def test_what_the_definition_or_the_webhook_would_refuse_is_named(
    path: str, value: Any, argument: str, rule: str
) -> None:
    found = check(changed(path, value))
    assert [where for where, _ in found] == [argument], found
    assert rule in found[0][1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.trainer", None),
        ("spec.runtimeRef", {"name": "own", "kind": "TrainingRuntime"}),
        ("spec.initializer", {"model": {"storageUri": "hf://org/base", "secretRef": {"name": "hub"}}}),
        ("spec.initializer.dataset.storageUri", ""),
        ("spec.runtimePatches", patched("kueue.x-k8s.io/manager")),
        ("spec.runtimePatches", patched("me/x", name="node", template=pod_of(nodeSelector={"a": "b"}))),
        ("spec.runtimePatches", patched("me/x", name="n", template=pod_of(containers=[PROXY]))),
        # The webhook looks at the environment of containers only.
        ("spec.runtimePatches", patched("me/x", name="n", template=pod_of(initContainers=NODE_ENV))),
        # As 2.0 and 2.1 take it.
        ("spec.trainer.numProcPerNode", "auto"),
        ("spec.podSpecOverrides", [{"targetJobs": TARGET, "containers": [PROXY]}]),
        ("spec.podTemplateOverrides", [{"targetJobs": TARGET}] * 2),
        ("spec.managedBy", "kueue.x-k8s.io/multikueue"),
        ("spec.suspend", True),
    ],
)  # fmt: skip
def test_what_the_trainer_takes_is_taken(path: str, value: Any) -> None:
    assert check(changed(path, value)) == []


def test_all_mistakes_come_together() -> None:
    manifest = changed("spec.trainer.numNodes", 0)
    manifest["spec"] |= {"runtimeRef": {"kind": "Runtime"}, "managedBy": "me", "runtimePatches": patched("me")}
    assert [argument for argument, _ in check(manifest)] == [
        "spec.runtimeRef.name",
        "spec.runtimeRef.kind",
        "spec.trainer.numNodes",
        "spec.runtimePatches[0].manager",
        "spec.managedBy",
    ]


@pytest.mark.parametrize("given_manifest", [None, [], {}, {"spec": []}])
def test_what_is_no_manifest_is_one_mistake(given_manifest: Any) -> None:
    assert [argument for argument, _ in check(given_manifest)] == ["spec"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [
    "runtimeRef",
    "trainer",
    "trainer.env",
    "initializer",
    "initializer.model",
    "runtimePatches",
    "podSpecOverrides",
]


@given(st.sampled_from(["metadata", "spec", *(f"spec.{field}" for field in FIELDS)]), json_values)
def test_a_manifest_of_any_shape_is_explained_and_never_crashes(path: str, value: Any) -> None:
    for argument, rule in check(changed(path, value)):
        assert argument
        assert rule


# --- status -----------------------------------------------------------------------------------------------------


def status(*conditions: tuple[str, str], **rest: Any) -> JSON:
    listed = [{"type": type_, "status": value, "reason": f"R{type_}", "message": "m"} for type_, value in conditions]
    return {"status": {"conditions": listed, **rest}}


def counts(**node: int) -> list[JSON]:
    return [{"name": "model-initializer", "succeeded": 1}, {"name": "node", **node}]


@pytest.mark.parametrize(
    ("obj", "phase", "reason"),
    [
        ({}, "Pending", ""),
        ({"status": {}}, "Pending", ""),
        (status(), "Pending", ""),
        (status(jobsStatus=counts(active=0, ready=0)), "Pending", ""),
        (status(jobsStatus=counts(active=1)), "Running", ""),
        (status(jobsStatus=counts(ready=1)), "Running", ""),
        (status(("Suspended", "True")), "Pending", "RSuspended"),
        (status(("Suspended", "False"), jobsStatus=counts(active=1)), "Running", ""),
        (status(("Suspended", "False"), ("Complete", "True")), "Succeeded", "RComplete"),
        (status(("Failed", "True"), jobsStatus=counts(failed=1)), "Failed", "RFailed"),
    ],
)  # fmt: skip
def test_the_outcome_of_a_train_job(obj: JSON, phase: str, reason: str) -> None:
    outcome = train_job.read_outcome(obj)
    assert (outcome.phase, outcome.reason) == (phase, reason)


TOLD = {
    "progressPercentage": 40,
    "estimatedRemainingSeconds": 90,
    "metrics": [
        {"name": "loss", "value": "1.5"},
        {"name": "grad_norm", "value": "nan"},
        {"name": "text", "value": "x"},
    ],
}


@pytest.mark.parametrize(
    ("obj", "line"),
    [
        ({}, ""),
        (status(jobsStatus=counts(active=2)), "model-initializer 1 succeeded, node 2 active"),
        (status(jobsStatus=counts(active=1, failed=1)), "model-initializer 1 succeeded, node 1 active, node 1 failed"),
        (status(trainerStatus=TOLD), "40 % done"),
        (status(trainerStatus={"progressPercentage": 0}), "0 % done"),
    ],
)
def test_the_progress_is_one_line(obj: JSON, line: str) -> None:
    assert train_job.read_progress(obj) == line


def test_only_finite_metrics_are_metrics() -> None:
    assert train_job.read_metrics(status(trainerStatus=TOLD)) == {"loss": 1.5}
    assert train_job.read_metrics({}) == {}


def test_a_jobs_pods_carry_the_name_of_its_job_set() -> None:
    assert train_job.pod_selector("x") == "jobset.sigs.k8s.io/jobset-name=x"
