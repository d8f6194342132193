"""The trainer as a TrainJob: its options, and what of its pod each version of Kubeflow Trainer can carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.resources import trial_template
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.runtime_patch import Version, read_version
from airflow_llmtune.resources.search_space import SearchSpace, double
from airflow_llmtune.resources.train_job_preflight import check_manifest
from airflow_llmtune.resources.trial_template import TrainerSpec

JSON = dict[str, Any]
WHERE = ("demo-1", "ml", {"a": "1"}, {})
# Names and types of the fields of a TrainJob's spec, read off the definition of each version, down to Kubernetes' own.
FIELDS: JSON = json.loads((Path(__file__).parent / "data" / "train_job_fields.json").read_text())
OLD_POD: JSON = {"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}
EVERYTHING: JSON = {
    "model": "pvc://models/base",
    "dataset": "/data",
    "output_uri": "pvc://work/out",
    "env": {"A": "1", "HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    "resources": {"cpu": 4, "memory": "8Gi", "gpu": 1},
    "job_kind": "TrainJob",
    "num_nodes": 2,
    "service_account_name": "trainer",
    "pod_template": OLD_POD,
}


def training(**changes: Any) -> JSON:
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, **{**EVERYTHING, **changes})
    manifest = trial_template.training_manifest(spec, *WHERE, {"learning_rate": 0.1}, problems)
    problems.raise_if_any("The training")
    return manifest


def unknown(value: Any, fields: Any, where: str = "spec") -> list[str]:
    """The paths that a definition does not have."""
    if isinstance(fields, dict):
        missing = [f"{where}.{name}" for name in value if name not in fields]
        return missing + [
            path for name in value if name in fields for path in unknown(value[name], fields[name], f"{where}.{name}")
        ]
    if isinstance(fields, list):
        return [path for entry in value for path in unknown(entry, fields[0], f"{where}[]")]
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    fits = any(isinstance(value, types[word]) for word in fields.split(" or "))
    return [] if fits else [f"{where} is no {fields}"]


@pytest.mark.parametrize("version", FIELDS)
def test_a_train_job_has_only_fields_of_its_version(version: str) -> None:
    manifest = training(kubeflow_trainer_version=version)
    assert unknown(manifest["spec"], FIELDS[version]) == []
    problems = Problems()
    check_manifest(manifest, problems)
    assert problems.errors == []


@pytest.mark.parametrize(
    ("version", "field"), [("2.0", "podSpecOverrides"), ("2.1", "podTemplateOverrides"), ("2.2", "runtimePatches")]
)
def test_the_rest_of_the_pod_goes_where_each_version_takes_it(version: str, field: str) -> None:
    (change,) = training(kubeflow_trainer_version=version)["spec"][field]
    if field == "runtimePatches":
        (job,) = change["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert (change["manager"], job["name"]) == ("airflow-llmtune/operator", "node")
        pod = job["template"]["spec"]["template"]
    else:
        assert change.pop("targetJobs") == [{"name": "node"}]
        pod = change if field == "podTemplateOverrides" else {"spec": change}
    if version != "2.0":
        assert pod["metadata"] == {"annotations": {"sidecar.istio.io/inject": "false"}}
    assert pod["spec"]["serviceAccountName"] == "trainer"
    assert pod["spec"]["nodeSelector"] == {"a": "b"}
    assert [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]] == ["models", "work"]
    (container,) = pod["spec"]["containers"]
    assert container.keys() == {"name", "volumeMounts"}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/mnt/models", "/mnt/work"]


def test_without_anything_to_change_there_is_no_patch() -> None:
    made = training(
        model="/m", output_uri="/out", service_account_name=None, pod_template=None, kubeflow_trainer_version="2.0"
    )
    assert made["spec"].keys() == {"runtimeRef", "trainer"}


def test_the_trainer_is_that_of_the_other_kinds() -> None:
    trainer = training()["spec"]["trainer"]
    master = training(job_kind="PyTorchJob")["spec"]["pytorchReplicaSpecs"]["Master"]
    (container,) = master["template"]["spec"]["containers"]
    assert {name: trainer[name] for name in ("image", "command", "args", "env")} == {
        name: container[name] for name in ("image", "command", "args", "env")
    }
    assert trainer["resourcesPerNode"] == container["resources"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 1)


@pytest.mark.parametrize(
    ("version", "deadline"), [("2.0", None), ("2.1", None), ("2.2", 21600), ("2.3", 21600), ("2.4", 21600)]
)
def test_a_deadline_is_set_where_there_is_one(version: str, deadline: int | None) -> None:
    assert training(kubeflow_trainer_version=version)["spec"].get("activeDeadlineSeconds") == deadline


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (None, ("ClusterTrainingRuntime", "torch-distributed")),
        ("own", ("ClusterTrainingRuntime", "own")),
        ({"name": "own"}, ("ClusterTrainingRuntime", "own")),
        ({"name": "own", "kind": "TrainingRuntime"}, ("TrainingRuntime", "own")),
        ({"name": "own", "kind": "TrainingRuntime", "apiGroup": "trainer.kubeflow.org"}, ("TrainingRuntime", "own")),
    ],
)
def test_the_runtime_is_the_clusters_unless_told_otherwise(reference: Any, expected: tuple[str, str]) -> None:
    made = training(runtime_ref=reference)["spec"]["runtimeRef"]
    assert made == {"apiGroup": "trainer.kubeflow.org", "kind": expected[0], "name": expected[1]}


@pytest.mark.parametrize(
    ("text", "version"),
    [("2.0", (2, 0)), ("2.10", (2, 10)), ("v2.1.0", (2, 1)), ("2.3.0-rc.1", (2, 3)), ("2", None), ("1.9", None),
     (2.1, None), ("2.x", None)],
)  # fmt: skip
def test_versions(text: Any, version: tuple[int, int] | None) -> None:
    problems = Problems()
    assert read_version("v", text, problems) == (None if version is None else Version(*version))
    assert [error.rule for error in problems.errors] == (
        ["is not a version of Kubeflow Trainer v2"] if version is None else []
    )


def pod(**spec: Any) -> JSON:
    return {"pod_template": {"spec": spec}}


def node(**fields: Any) -> JSON:
    return pod(containers=[{"name": "node", **fields}])


CARRY = "is nothing that a TrainJob of Kubeflow Trainer"


@pytest.mark.parametrize(
    ("changes", "argument", "rule"),
    [
        ({"runtime_ref": ""}, "runtime_ref", "is not a name"),
        ({"runtime_ref": {}}, "runtime_ref.name", "is not a name"),
        ({"runtime_ref": {"name": "x", "kind": "Runtime"}}, "runtime_ref.kind", "is not known"),
        ({"runtime_ref": {"name": "x", "apiGroup": "kubeflow.org"}}, "runtime_ref.apiGroup", "is not known"),
        ({"runtime_ref": {"name": "x", "namespace": "y"}}, "runtime_ref.namespace", "is not known"),
        ({"runtime_ref": "x", "job_kind": "Job", "num_nodes": 1, "pod_template": None}, "runtime_ref",
         "is of a TrainJob only"),
        ({"runtime_ref": "x", "job_kind": None}, "runtime_ref", "is of a TrainJob only"),
        ({"kubeflow_trainer_version": "2.1", "job_kind": "PyTorchJob"}, "kubeflow_trainer_version",
         "is of a TrainJob only"),
        ({"kubeflow_trainer_version": "1.9"}, "kubeflow_trainer_version", "is not a version"),
        ({"ttl_seconds_after_finished": 7200}, "ttl_seconds_after_finished", "stays until somebody deletes it"),
        ({"active_deadline_seconds": 60, "kubeflow_trainer_version": "2.1"}, "active_deadline_seconds",
         "is nothing that a TrainJob of Kubeflow Trainer 2.1 has"),
        ({"env": {"PET_NNODES": "2"}}, "env.PET_NNODES", "is set by Kubeflow Trainer itself"),
        (node(env=[{"name": "PET_NODE_RANK", "value": "0"}]), "pod_template.spec.containers[0].env.PET_NODE_RANK",
         "is set by Kubeflow Trainer itself"),
        (pod(hostNetwork=True), "pod_template.spec.hostNetwork", CARRY),
        (pod(restartPolicy="Never"), "pod_template.spec.restartPolicy", CARRY),
        (pod(initContainers=[{"name": "i", "image": "x"}]), "pod_template.spec.initContainers", CARRY),
        (pod(containers=[{"name": "proxy", "image": "x"}]), "pod_template.spec.containers[0].name",
         "is not the trainer's container node"),
        (node(livenessProbe={}), "pod_template.spec.containers[0].livenessProbe", CARRY),
        ({"pod_template": {"metadata": {"finalizers": []}}}, "pod_template.metadata.finalizers", CARRY),
        ({"pod_template": {"metadata": {"labels": {}}}, "kubeflow_trainer_version": "2.0"},
         "pod_template.metadata.labels", CARRY),
        ({**pod(affinity={}), "kubeflow_trainer_version": "2.0"}, "pod_template.spec.affinity", CARRY),
        ({**pod(securityContext={}), "kubeflow_trainer_version": "2.1"}, "pod_template.spec.securityContext", CARRY),
        ({**node(securityContext={}), "kubeflow_trainer_version": "2.1"},
         "pod_template.spec.containers[0].securityContext", CARRY),
        ({**pod(terminationGracePeriodSeconds=1), "kubeflow_trainer_version": "2.2"},
         "pod_template.spec.terminationGracePeriodSeconds", CARRY),
    ],
)  # fmt: skip
def test_what_a_train_job_cannot_have_is_named(changes: JSON, argument: str, rule: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        training(**changes)
    assert [error.argument for error in caught.value.errors] == [argument]
    assert rule in caught.value.errors[0].rule


@pytest.mark.parametrize(
    "changes",
    [
        pod(affinity={}, imagePullSecrets=[{"name": "r"}], securityContext={}, terminationGracePeriodSeconds=1),
        node(image="x", env=[{"name": "B", "value": "2"}], securityContext={"runAsUser": 1}, resources={}),
        {"pod_template": {"metadata": {"labels": {"team": "nlp"}}}},
        {"ttl_seconds_after_finished": None},
    ],
)
def test_what_the_latest_version_carries_is_taken(changes: JSON) -> None:
    assert unknown(training(**changes)["spec"], FIELDS["2.3"]) == []


def test_mistakes_in_options_are_told_once() -> None:
    problems = Problems()
    given = {
        "job_kind": "TrainJob",
        "runtime_ref": {"kind": "Runtime"},
        "kubeflow_trainer_version": 2.1,
        "ttl_seconds_after_finished": 7200,
        "pod_template": {"spec": {"hostNetwork": True}},
    }
    options = trial_template.read_options("job_options", given, problems)
    TrainerSpec.from_args(model="/m", dataset="/d", problems=problems, **options)
    assert sorted(error.argument for error in problems.errors) == [
        "job_options.kubeflow_trainer_version",
        "job_options.pod_template.spec.hostNetwork",
        "job_options.runtime_ref.kind",
        "job_options.runtime_ref.name",
        "job_options.ttl_seconds_after_finished",
    ]


def read_twice(options: JSON) -> tuple[TrainerSpec, list[str]]:
    """Read them as an operator does: out of its argument, then with all others."""
    problems = Problems()
    sound = trial_template.read_options("job_options", options, problems)
    spec = TrainerSpec.from_args(model="/m", dataset="/d", problems=problems, **sound)
    return spec, [error.argument for error in problems.errors]


@pytest.mark.parametrize("options", [{}, {"job_kind": "TrainJob", "kubeflow_trainer_version": "2.1"}])
def test_an_option_that_is_none_is_left_out(options: JSON) -> None:
    names = ["runtime_ref", "active_deadline_seconds", "num_nodes", "num_procs_per_node", "pod_template"]
    expected, _ = read_twice({**options, "ttl_seconds_after_finished": None})
    none = dict.fromkeys([*names, "service_account_name", "ttl_seconds_after_finished"])
    assert read_twice({**options, **none}) == (expected, [])


def test_with_an_unknown_kind_nothing_that_belongs_to_a_kind_is_blamed() -> None:
    options = {"runtime_ref": "x", "kubeflow_trainer_version": "2.1", "pod_template": node(env=[])["pod_template"]}
    assert read_twice({"job_kind": "TrainJobs", **options})[1] == ["job_options.job_kind"]


def test_a_trial_may_be_a_train_job() -> None:
    problems = Problems()
    spec = TrainerSpec.from_args(problems=problems, **EVERYTHING)
    made = trial_template.trial_template(
        spec, SearchSpace.from_json({"learning_rate": double(1e-5, 1e-3)}, problems), problems
    )
    assert problems.errors == []
    assert made["primaryContainerName"] == "node"
    assert made["primaryPodLabels"] == {
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": "0",
    }
    assert "Complete" in made["successCondition"]
    assert "metadata" not in made["trialSpec"]
    assert "--learning_rate=${trialParameters.learning_rate}" in made["trialSpec"]["spec"]["trainer"]["args"]
