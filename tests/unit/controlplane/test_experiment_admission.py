from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, EXPERIMENT, PERSISTENT_VOLUME
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from refusal import DENIED, Refusal, collector, container, denied, job_spec, template
from refusals import REFUSALS

Change = Callable[[Object], Any]


def space(obj: Object) -> Object:
    found: Object = obj["spec"]["parameters"][0]["feasibleSpace"]
    return found


def test_a_valid_experiment_is_filled_with_katibs_defaults(registry: Registry, experiment: Object) -> None:
    del experiment["spec"]["parallelTrialCount"]
    experiment["spec"]["objective"]["additionalMetricNames"] = ["acc"]
    spec = registry.create(EXPERIMENT, experiment)["spec"]
    assert spec["parallelTrialCount"] == 3
    assert spec["resumePolicy"] == "Never"
    assert spec["parameters"][0]["feasibleSpace"]["distribution"] == "uniform"
    assert spec["objective"]["metricStrategies"] == [
        {"name": "loss", "value": "min"},
        {"name": "acc", "value": "min"},
    ]
    assert spec["metricsCollectorSpec"] == {"collector": {"kind": "StdOut"}}
    assert spec["trialTemplate"]["successCondition"] == ('status.conditions.#(type=="Complete")#|#(status=="True")#')
    assert "primaryPodLabels" not in spec["trialTemplate"]


def test_a_pytorch_job_template_gets_its_own_conditions_and_labels(registry: Registry, experiment: Object) -> None:
    pod = job_spec(experiment)["template"]
    pod["spec"]["containers"][0]["name"] = "pytorch"
    template(experiment)["trialSpec"] = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": pod}}},
    }
    filled = template(registry.create(EXPERIMENT, experiment))
    assert filled["successCondition"] == 'status.conditions.#(type=="Succeeded")#|#(status=="True")#'
    assert filled["primaryPodLabels"] == {"training.kubeflow.org/job-role": "master"}


def test_file_collector_gets_its_path_and_format(registry: Registry, experiment: Object) -> None:
    collector("File")(experiment)
    spec = registry.create(EXPERIMENT, experiment)["spec"]["metricsCollectorSpec"]
    path = {"kind": "File", "path": "/var/log/katib/metrics.log", "format": "TEXT"}
    assert spec["source"]["fileSystemPath"] == path


def test_unknown_fields_vanish(registry: Registry, experiment: Object) -> None:
    experiment["spec"]["objective"]["objectivMetricName"] = "typo"
    experiment["spec"]["budget"] = 3
    stored = registry.create(EXPERIMENT, experiment)["spec"]
    assert "budget" not in stored
    assert "objectivMetricName" not in stored["objective"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda e: e["spec"].update(maxTrialCount="4"), "string into Go struct field ExperimentSpec.spec.maxTrial"),
        (lambda e: e["spec"].update(maxTrialCount=2.5), "number 2.5 into Go struct field ExperimentSpec.spec.max"),
        (lambda e: space(e).update(min=0.1), "number into Go struct field FeasibleSpace.spec.parameters.feasible"),
        (lambda e: e["spec"].update(parameters={}), "object into Go struct field ExperimentSpec.spec.parameters of"),
        (lambda e: e["spec"]["objective"].update(goal="0.1"), "of type float64"),
        (
            lambda e: e["spec"]["objective"].update(type=1),
            "number into Go struct field ObjectiveSpec.spec.objective.type of type v1beta1.ObjectiveType",
        ),
        (
            lambda e: e["spec"].update(resumePolicy=["Never"]),
            "array into Go struct field ExperimentSpec.spec.resumePol",
        ),
        (
            lambda e: e["spec"].update(maxTrialCount=2**31),
            "number 2147483648 into Go struct field ExperimentSpec.spec.",
        ),
        (
            lambda e: e["spec"].update(parallelTrialCount="1", maxTrialCount="1"),
            "string into Go struct field ExperimentSpec.spec.maxTrialCount",
        ),
    ],
)
def test_a_wrong_type_fails_in_the_defaulter(registry: Registry, experiment: Object, change: Change, text: str) -> None:
    change(experiment)
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    prefix = 'admission webhook "defaulter.experiment.katib.kubeflow.org" denied the request: json: cannot unmarshal '
    assert caught.value.message.startswith(prefix)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("spec", "text"), [({"spec": {"a": 1}}, '{"spec":{"a":1}}'), ({"kind": ["Job"]}, '{"kind":["Job"]}')]
)
def test_a_template_without_a_kind_cannot_be_read(
    registry: Registry, experiment: Object, spec: Object, text: str
) -> None:
    template(experiment)["trialSpec"] = spec
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    prefix = 'admission webhook "defaulter.experiment.katib.kubeflow.org" denied the request: '
    assert caught.value.message == f"{prefix}Object 'Kind' is missing in '{text}'"


def test_an_api_version_that_is_no_text_counts_as_none(registry: Registry, experiment: Object) -> None:
    template(experiment)["trialSpec"]["apiVersion"] = {"a": "batch/v1"}
    with pytest.raises(ApiError, match=r"APIVersion and Kind in spec\.trialTemplate must be specified"):
        registry.create(EXPERIMENT, experiment)


def test_empty_values_vanish_as_in_gos_json(registry: Registry, experiment: Object) -> None:
    experiment["spec"]["objective"].update(additionalMetricNames=[], goal=0)
    template(experiment).update(retain=False, primaryPodLabels={})
    experiment["spec"]["parameters"][0]["feasibleSpace"].update(step="", list=[])
    stored = registry.create(EXPERIMENT, experiment)["spec"]
    assert "additionalMetricNames" not in stored["objective"]
    assert stored["objective"]["goal"] == 0
    assert not {"retain", "primaryPodLabels"} & stored["trialTemplate"].keys()
    assert stored["parameters"][0]["feasibleSpace"] == {"min": "0.1", "max": "0.9", "distribution": "uniform"}


def test_the_answer_is_a_400_without_a_reason(registry: Registry, experiment: Object) -> None:
    experiment["spec"]["maxTrialCount"] = 1
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    text = "spec.parallelTrialCount: Invalid value: 2: should be less than or equal to spec.maxTrialCount"
    assert caught.value.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": DENIED + text,
        "code": 400,
    }


def test_several_mistakes_come_in_one_list(registry: Registry, experiment: Object) -> None:
    experiment["spec"].update(maxTrialCount=0, parallelTrialCount=-1)
    experiment["spec"]["algorithm"] = {"algorithmName": "magic"}
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    assert caught.value.message == (
        f"{DENIED}[spec.maxTrialCount: Invalid value: 0: must be greater than 0, "
        "spec.parallelTrialCount: Invalid value: -1: must be greater than 0, "
        'spec.algorithm.algorithmName: Invalid value: "magic": unable to get Suggestion config data for '
        "algorithm magic: failed to find suggestion config for algorithm: magic in ConfigMap: katib-config]"
    )


def test_the_namespace_label_is_checked_before_everything(registry: Registry, experiment: Object) -> None:
    experiment["metadata"]["namespace"] = "plain"
    experiment["spec"]["maxTrialCount"] = 0
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    assert caught.value.message == (
        f'{DENIED}Cannot create the Experiment "exp" in namespace "plain": the namespace lacks label '
        '"katib.kubeflow.org/metrics-collector-injection: enabled"'
    )


@pytest.mark.parametrize("rule", REFUSALS, ids=str)
def test_a_mistake_is_refused_in_katibs_words(registry: Registry, experiment: Object, rule: Refusal) -> None:
    rule.change(experiment)
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    assert caught.value.code == 400
    texts = rule.texts(experiment)
    assert caught.value.message == denied(texts) if rule.is_whole else texts[0] in caught.value.message


@pytest.mark.parametrize("name", ["enas", "darts"])
def test_neural_architecture_search_is_refused_clearly(registry: Registry, experiment: Object, name: str) -> None:
    experiment["spec"]["algorithm"]["algorithmName"] = name
    with pytest.raises(ApiError, match=f"algorithm {name} searches neural architectures"):
        registry.create(EXPERIMENT, experiment)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_every_algorithm_is_admitted(registry: Registry, experiment: Object, name: str) -> None:
    experiment["spec"].update(algorithm={"algorithmName": name}, earlyStopping={"algorithmName": "medianstop"})
    registry.create(EXPERIMENT, experiment)


def test_a_bad_objective_ends_the_check_early(registry: Registry, experiment: Object) -> None:
    experiment["spec"].update(maxTrialCount=0, parallelTrialCount=-1, objective={"type": "up"})
    experiment["spec"]["algorithm"] = {"algorithmName": "magic"}
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    texts = [
        "spec.maxTrialCount: Invalid value: 0: must be greater than 0",
        "spec.parallelTrialCount: Invalid value: -1: must be greater than 0",
        'spec.objective.type: Invalid value: "up": must be minimize or maximize',
        "spec.objective.objectiveMetricName: Required value: must be specified",
    ]
    assert caught.value.message == denied(texts)


def test_the_same_text_comes_once(registry: Registry, experiment: Object) -> None:
    collector("File", filter={"metricsFormat": ["(a)", "(a)", "(b)"]})(experiment)
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    path = "spec.metricsCollectorSpec.source.filter.metricsFormat: Invalid value:"
    texts = [f'{path} "({name})": two top subexpressions are required' for name in "ab"]
    assert caught.value.message == denied(texts)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["spec"]["parameters"].append(
            {"name": "unused", "parameterType": "categorical", "feasibleSpace": {}}
        ),
        lambda e: space(e).update(min="9", max="1"),
        lambda e: e["spec"]["algorithm"].update(algorithmSettings=[{"name": "nonsense", "value": "1"}]),
        lambda e: template(e).update(primaryContainerName="absent"),
        lambda e: container(e).update(resources={"limits": {"cpu": 2}, "requests": {"memory": "1Gi"}}),
        lambda e: job_spec(e).update(suspend=False, backoffLimit=1.0),
        lambda e: e["spec"].update(parameters=[{"name": "lr", "parameterType": "unknown"}]),
        lambda e: space(e).update(min="low", max="high"),
        lambda e: space(e).update(distribution="logUniform", min="-1", max="0"),
        lambda e: e["metadata"].update(name="a.b"),
        lambda e: template(e)["trialSpec"].update(apiVersion="batch/v2"),
        lambda e: template(e)["trialSpec"].update(kind="TrainJob", apiVersion="trainer.kubeflow.org/v1alpha1"),
        lambda e: (
            template(e)["trialSpec"].update(kind="Workflow", apiVersion="argoproj.io/v1alpha1"),
            template(e).update(successCondition="status.[@this]", failureCondition="status.[@this]"),
        ),
        collector("StdOut", filter={"metricsFormat": ["(a)"]}),
        collector("Push"),
        collector("TensorFlowEvent"),
        collector("Custom", {"name": "c", "image": "i"}, fileSystemPath={"kind": "Directory", "path": "/x"}),
        collector("File", filter={"metricsFormat": [r"(\\w+)=(\\d+)"]}),
    ],
)
def test_what_katib_lets_pass_passes(registry: Registry, experiment: Object, change: Change) -> None:
    change(experiment)
    registry.create(EXPERIMENT, experiment)


def test_metadata_references_need_no_parameter(registry: Registry, experiment: Object) -> None:
    template(experiment)["trialParameters"].append({"name": "self", "reference": "${trialSpec.Name}"})
    container(experiment)["args"] = ["${trialParameters.self}"]
    registry.create(EXPERIMENT, experiment)


def test_a_template_can_come_from_a_config_map(registry: Registry, experiment: Object) -> None:
    template(experiment).pop("trialSpec")
    source = {"configMapName": "templates", "configMapNamespace": "default", "templatePath": "job.yaml"}
    conditions = {"successCondition": "status.ok", "failureCondition": "status.bad"}
    template(experiment).update(configMap=source, **conditions)
    with pytest.raises(ApiError, match=r"unable to parse spec\.trialTemplate"):
        registry.create(EXPERIMENT, experiment)
    text = "apiVersion: batch/v1\nkind: Job\nspec:\n  backoffLimit: 0 # ${trialParameters.rate}\n"
    registry.create(CONFIG_MAP, {"metadata": {"name": "templates"}, "data": {"job.yaml": text}}, "default")
    registry.create(EXPERIMENT, experiment)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "apiVersion: batch/v1\n# ${trialParameters.rate}",
            "unable to convert spec.trialTemplate: apiVersion: batch/v1",
        ),
        ("kind: Job\n# ${trialParameters.rate}", "APIVersion and Kind in spec.trialTemplate must be specified"),
        ("[${trialParameters.rate}", "unable to convert spec.trialTemplate: [test-value to unstructured"),
    ],
)
def test_a_template_in_a_config_map_is_checked_too(
    registry: Registry, experiment: Object, text: str, error: str
) -> None:
    template(experiment).pop("trialSpec")
    source = {"configMapName": "templates", "configMapNamespace": "default", "templatePath": "job.yaml"}
    template(experiment).update(configMap=source, successCondition="status.ok", failureCondition="status.bad")
    registry.create(CONFIG_MAP, {"metadata": {"name": "templates"}, "data": {"job.yaml": text}}, "default")
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    assert error in caught.value.message


def test_the_volume_of_an_earlier_search_must_be_gone(registry: Registry, experiment: Object) -> None:
    registry.create(PERSISTENT_VOLUME, {"metadata": {"name": "exp-random-default"}, "spec": {}})
    experiment["spec"]["resumePolicy"] = "FromVolume"
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    text = "Cannot create the Experiment: exp in namespace: default, PV: exp-random-default is not deleted"
    assert caught.value.message == DENIED + text


LONG = 40_000


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda obj: template(obj)["trialParameters"][0].update(reference="${trialSpec." * LONG), "does not exist in"),
        (
            lambda obj: template(obj)["trialParameters"][0].update(reference="${trialSpec." + "a[" * LONG + "}"),
            "does not exist in",
        ),
        (
            lambda obj: container(obj)["command"].append("${trialParameters." * LONG),
            "not found in spec.trialParameters",
        ),
        (
            lambda obj: obj["spec"].update(
                metricsCollectorSpec={
                    "collector": {"kind": "File"},
                    "source": {"filter": {"metricsFormat": ["[" + "(" * LONG + "]"]}},
                }
            ),
            "two top subexpressions are required",
        ),
        (
            lambda obj: obj["spec"].update(
                metricsCollectorSpec={
                    "collector": {"kind": "PrometheusMetric"},
                    "source": {"httpGet": {"port": "9" * LONG}},
                }
            ),
            "must be a positive integer value",
        ),
    ],
)
def test_no_text_keeps_admission_busy(registry: Registry, experiment: Object, change: Change, text: str) -> None:
    change(experiment)
    with pytest.raises(ApiError) as raised:
        registry.create(EXPERIMENT, experiment)
    assert text in raised.value.message
