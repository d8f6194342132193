from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.problems import Problems

JSON = dict[str, Any]
MANIFEST: JSON = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]},
        "algorithm": {"algorithmName": "random"},
        "maxTrialCount": 4,
        "parallelTrialCount": 2,
        "parameters": [
            {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "0.1"}},
            {"name": "opt", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd", "adam"]}},
        ],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [
                {"name": "learningRate", "reference": "lr"},
                {"name": "optimizer", "reference": "opt"},
                {"name": "name", "reference": "${trialSpec.Name}"},
            ],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "main",
                                    "image": "x",
                                    "command": [
                                        "train",
                                        "--lr=${trialParameters.learningRate}",
                                        "--opt=${trialParameters.optimizer}",
                                        "--name=${trialParameters.name}",
                                    ],
                                }
                            ],
                        }
                    }
                },
            },
        },
    },
}
GONE = object()


def changed(path: str, value: Any) -> JSON:
    """The manifest with the value at a dotted path replaced, or taken away."""
    manifest = copy.deepcopy(MANIFEST)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node: Any = manifest
    for key in parents:
        node = node[key] if isinstance(node, list) else node.setdefault(key, {})
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return manifest


def check(manifest: Any) -> list[tuple[str, str]]:
    problems = Problems()
    experiment.check_manifest(manifest, problems)
    return [(error.argument, error.rule) for error in problems.errors]


def test_a_good_manifest_has_no_mistakes(through_katib: Callable[[JSON], JSON]) -> None:
    assert check(MANIFEST) == []
    assert through_katib(MANIFEST) == MANIFEST


TEMPLATE = "spec.trialTemplate"
LR = "spec.parameters.0.feasibleSpace"
CONTAINER = f"{TEMPLATE}.trialSpec.spec.template.spec.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "argument", "rule"),
    [
        ("apiVersion", "kubeflow.org/v1", "apiVersion", "is not kubeflow.org/v1beta1"),
        ("kind", "Trial", "kind", "is not Experiment"),
        ("spec", GONE, "spec", "is missing"),
        ("metadata.name", "x" * 41, "metadata.name", "at most 40"),
        ("metadata.name", "1x", "metadata.name", "starting with a letter"),
        ("metadata", ["x"], "metadata", "is not a mapping"),
        ("metadata", "", "metadata", "is not a mapping"),
        ("metadata.labels", [], "metadata.labels", "is not a mapping"),
        ("metadata.labels", {"team": 7}, "metadata.labels.team", "is no pair of texts"),
        ("metadata.labels", {7: "nlp"}, "metadata.labels.7", "is no pair of texts"),
        ("metadata.annotations", "a=b", "metadata.annotations", "is not a mapping"),
        ("metadata.annotations", {"on": True}, "metadata.annotations.on", "is no pair of texts"),
        ("spec.objective", GONE, "spec.objective.objectiveMetricName", "is missing"),
        ("spec.objective.type", "min", "spec.objective.type", "is not known"),
        ("spec.objective.goal", "1e-3", "spec.objective.goal", "is not a finite number"),
        ("spec.objective.goal", True, "spec.objective.goal", "is not a finite number"),
        ("spec.objective.goal", float("nan"), "spec.objective.goal", "is not a finite number"),
        ("spec.objective.objectiveMetricName", "", "spec.objective.objectiveMetricName", "is missing"),
        ("spec.objective.additionalMetricNames", ["loss"], "spec.objective.additionalMetricNames", "contains"),
        ("spec.algorithm", GONE, "spec.algorithm.algorithmName", "is missing"),
        ("spec.maxTrialCount", 1, "spec.parallelTrialCount", "is more than `spec.maxTrialCount`=1"),
        ("spec.maxTrialCount", "4", "spec.maxTrialCount", "is not an integer"),
        ("spec.parallelTrialCount", 0, "spec.parallelTrialCount", "is less than 1"),
        ("spec.maxFailedTrialCount", 5, "spec.maxFailedTrialCount", "is more than"),
        ("spec.nasConfig", {"operations": []}, "spec.parameters", "exclude one another"),
        ("spec.parameters.0.name", "", "spec.parameters[0].name", "is missing"),
        ("spec.parameters.0.parameterType", "float", "spec.parameters[0].parameterType", "is not known"),
        (f"{LR}.min", 0.01, "spec.parameters[0].feasibleSpace.min", "is not text"),
        (f"{LR}.min", "x", "spec.parameters[0].feasibleSpace.min", "is not a finite number"),
        (f"{LR}.min", "1", "spec.parameters[0].feasibleSpace.min", "is not less than max"),
        (f"{LR}.max", GONE, "spec.parameters[0].feasibleSpace.max", "is missing"),
        (f"{LR}.list", ["1"], "spec.parameters[0].feasibleSpace.list", "does not belong"),
        (f"{LR}.step", "0", "spec.parameters[0].feasibleSpace.step", "is not above 0"),
        ("spec.parameters.1.feasibleSpace.list", [], "spec.parameters[1].feasibleSpace.list", "is missing"),
        ("spec.parameters.1.feasibleSpace.list", [1], "spec.parameters[1].feasibleSpace.list[0]", "is not text"),
        ("spec.parameters.1.feasibleSpace.list", "sgd", "spec.parameters[1].feasibleSpace.list", "is not a list"),
        ("spec.parameters.1", None, "spec.parameters[1]", "is not a mapping"),
        ("spec.metricsCollectorSpec", {"collector": {"kind": "None"}},
         "spec.metricsCollectorSpec.collector.kind", "is not known"),
        (TEMPLATE, GONE, "spec.trialTemplate", "is missing"),
        (f"{TEMPLATE}.configMap", {}, "spec.trialTemplate.trialSpec", "exclude one another"),
        (f"{TEMPLATE}.primaryContainerName", GONE, "spec.trialTemplate.primaryContainerName", "is missing"),
        (f"{TEMPLATE}.primaryContainerName", "x", "spec.trialTemplate.primaryContainerName", "no container"),
        (f"{TEMPLATE}.trialParameters.0.name", "a{", "spec.trialTemplate.trialParameters[0].name", "brace"),
        (f"{TEMPLATE}.trialSpec.metadata", {"name": "x"},
         "spec.trialTemplate.trialSpec.metadata.name", "is set by Katib"),
        (f"{TEMPLATE}.trialSpec.metadata", {"labels": {"team": None}},
         "spec.trialTemplate.trialSpec.metadata.labels.team", "is no pair of texts"),
        (f"{TEMPLATE}.trialSpec.apiVersion", GONE, "spec.trialTemplate.trialSpec.apiVersion", "is missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_manifest_is_named(path: str, value: Any, argument: str, rule: str) -> None:
    found = check(changed(path, value))
    assert any(where == argument and rule in why for where, why in found), found


@pytest.mark.parametrize("goal", [0.001, 1, 0])
def test_a_goal_is_a_number(goal: float) -> None:
    assert check(changed("spec.objective.goal", goal)) == []


def test_a_goal_that_yaml_took_for_text_is_mended_by_its_author() -> None:
    problems = Problems()
    experiment.check_manifest(changed("spec.objective.goal", yaml.safe_load("1e-3")), problems)
    assert [error.fix[:24] for error in problems.errors] == ["write 1.0e-3 or 0.001, n"]
    assert check(changed("spec.objective.goal", yaml.safe_load("1.0e-3"))) == []


@pytest.mark.parametrize("metadata", [None, {}, {"labels": None, "annotations": {}}, {"labels": {"team": "nlp"}}])
def test_metadata_of_an_author_may_be_short(metadata: Any) -> None:
    assert check(changed("metadata", metadata)) == []


def test_katibs_default_parallelism_is_a_trap() -> None:
    manifest = changed("spec.maxTrialCount", 2)
    del manifest["spec"]["parallelTrialCount"]
    assert check(manifest) == [
        ("spec.parallelTrialCount", "is missing, and Katib's default 3 is more than `spec.maxTrialCount`=2")
    ]
    del manifest["spec"]["maxTrialCount"]
    assert check(manifest) == []


@pytest.mark.parametrize("given_manifest", [None, "text", [], {}, {"spec": None}])
def test_what_is_no_manifest_is_one_mistake(given_manifest: Any) -> None:
    assert check(given_manifest) == [("spec", "is missing")]


def test_a_parameter_that_no_trial_consumes_is_found() -> None:
    found = check(changed(f"{TEMPLATE}.trialParameters.1.reference", "${trialSpec.Kind}"))
    assert [argument for argument, _ in found] == ["spec.parameters"]
    assert "Katib creates no trial" in found[0][1]


def test_a_reference_to_nothing_is_found() -> None:
    found = check(changed(f"{TEMPLATE}.trialParameters.1.reference", "optimiser"))
    assert [argument for argument, _ in found] == [
        "spec.trialTemplate.trialParameters[1].reference",
        "spec.parameters",
    ]


def test_placeholders_are_checked_in_both_directions() -> None:
    found = check(changed(f"{CONTAINER}.command.1", "--lr=${trialParameters.learning_rate}"))
    assert [argument for argument, _ in found] == [
        "spec.trialTemplate.trialParameters",
        "spec.trialTemplate.trialSpec",
    ]


def test_names_and_references_are_given_once() -> None:
    manifest = changed(f"{TEMPLATE}.trialParameters.2", {"name": "optimizer", "reference": "opt"})
    found = check(manifest)
    assert ("spec.trialTemplate.trialParameters[2].name", "is listed twice") in found
    assert ("spec.trialTemplate.trialParameters[2].reference", "is listed twice") in found
    parameters = [MANIFEST["spec"]["parameters"][0]] * 2
    assert ("spec.parameters[1].name", "is listed twice") in check(changed("spec.parameters", parameters))


def test_log_distributions_need_positive_bounds() -> None:
    space = {"min": "0", "max": "1", "distribution": "logUniform"}
    assert "must be above 0" in check(changed(LR, space))[0][1]


@pytest.mark.parametrize("kind", ["JAXJob", "Workflow"])
def test_kinds_that_katib_does_not_know_need_conditions(kind: str) -> None:
    manifest = changed(f"{TEMPLATE}.trialSpec.kind", kind)
    assert [argument for argument, _ in check(manifest)] == [
        "spec.trialTemplate.successCondition",
        "spec.trialTemplate.failureCondition",
    ]
    conditions = {"successCondition": "status.ok", "failureCondition": "status.bad"}
    manifest["spec"]["trialTemplate"].update(conditions)
    assert check(manifest) == []


def test_a_template_in_a_config_map_cannot_be_looked_into() -> None:
    manifest = copy.deepcopy(MANIFEST)
    template = manifest["spec"]["trialTemplate"]
    del template["trialSpec"]
    template |= {"configMap": {"configMapName": "x"}, "successCondition": "a", "failureCondition": "b"}
    assert check(manifest) == []


def test_a_pytorch_job_has_its_primary_container_checked_in_each_role() -> None:
    job = MANIFEST["spec"]["trialTemplate"]["trialSpec"]["spec"]
    trial = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {"Master": job}}}
    assert check(changed(f"{TEMPLATE}.trialSpec", trial)) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PATHS = [
    "apiVersion", "metadata", "metadata.name", "metadata.labels", "spec.objective.goal", f"{CONTAINER}.name",
    "spec.objective", "spec.algorithm", "spec.maxTrialCount", "spec.parameters.0",
    "spec.parameters", LR, f"{LR}.min", f"{LR}.list", TEMPLATE, f"{TEMPLATE}.trialParameters", CONTAINER,
    f"{TEMPLATE}.trialParameters.0", f"{TEMPLATE}.trialSpec", f"{TEMPLATE}.trialSpec.spec",
    "spec.objective.additionalMetricNames", "spec.metricsCollectorSpec",
]  # fmt: skip


@given(st.sampled_from(PATHS), json_values)
def test_a_manifest_of_any_shape_is_explained_and_never_crashes(path: str, value: Any) -> None:
    for argument, rule in check(changed(path, value)):
        assert argument
        assert rule
