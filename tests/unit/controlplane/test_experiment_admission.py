from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, EXPERIMENT
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object

Change = Callable[[Object], Any]

DENIED = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: '


def template(obj: Object) -> Object:
    found: Object = obj["spec"]["trialTemplate"]
    return found


def job_spec(obj: Object) -> Object:
    found: Object = template(obj)["trialSpec"]["spec"]
    return found


def container(obj: Object) -> Object:
    found: Object = job_spec(obj)["template"]["spec"]["containers"][0]
    return found


def space(obj: Object) -> Object:
    found: Object = obj["spec"]["parameters"][0]["feasibleSpace"]
    return found


def collector(**source: Any) -> Change:
    kind = source.pop("kind", "StdOut")
    return lambda e: e["spec"].update(metricsCollectorSpec={"collector": {"kind": kind}, "source": source})


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
    collector(kind="File")(experiment)
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
    ],
)
def test_a_wrong_type_fails_in_the_defaulter(registry: Registry, experiment: Object, change: Change, text: str) -> None:
    change(experiment)
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    prefix = 'admission webhook "defaulter.experiment.katib.kubeflow.org" denied the request: json: cannot unmarshal '
    assert caught.value.message.startswith(prefix)
    assert text in caught.value.message


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


REFUSALS: list[tuple[Change, str]] = [
    (lambda e: e["metadata"].update(name="1exp"), 'metadata.name: Invalid value: "1exp": name must consist of'),
    (lambda e: e["metadata"].update(name="x" * 41), "must be less than or equal to 40 characters"),
    (lambda e: e["spec"].update(maxFailedTrialCount=-1), "spec.maxFailedTrialCount: Invalid value: -1: should not"),
    (lambda e: e["spec"].update(maxFailedTrialCount=5), "5: should be less than or equal to spec.maxTrialCount"),
    (lambda e: e["spec"].update(resumePolicy="Maybe"), 'spec.resumePolicy: Invalid value: "Maybe": invalid Resume'),
    (lambda e: e["spec"].pop("objective"), "spec.objective: Required value: must be specified"),
    (lambda e: e["spec"]["objective"].update(type="min"), 'spec.objective.type: Invalid value: "min"'),
    (lambda e: e["spec"]["objective"].pop("objectiveMetricName"), "spec.objective.objectiveMetricName: Required"),
    (
        lambda e: e["spec"]["objective"].update(additionalMetricNames=["loss"]),
        'spec.objective.additionalMetricNames: Invalid value: ["loss"]: should not contain loss',
    ),
    (lambda e: e["spec"].pop("algorithm"), "spec.algorithm: Required value"),
    (lambda e: e["spec"]["algorithm"].clear(), "spec.algorithm.algorithmName: Required value"),
    (
        lambda e: e["spec"].update(earlyStopping={"algorithmName": "mean"}),
        "unable to get EarlyStopping config data for algorithm mean",
    ),
    (lambda e: e["spec"].update(parameters=[]), "spec.parameters or spec.nasConfig must be specified"),
    (
        lambda e: e["spec"].update(nasConfig={}),
        "only one of spec.parameters and spec.nasConfig can be specified",
    ),
    (lambda e: e["spec"]["parameters"][0].update(parameterType="float"), "parameterType: float is not supported"),
    (lambda e: space(e).update(distribution="beta"), "distribution: beta is not supported"),
    (lambda e: space(e).update(list=["1"]), "spec.parameters[0].feasibleSpace.list: Invalid value"),
    (
        lambda e: space(e).pop("min"),
        "feasibleSpace.max: Required value: feasibleSpace.max or feasibleSpace.min must be specified for param",
    ),
    (
        lambda e: e["spec"]["parameters"][0].update(parameterType="categorical"),
        "feasibleSpace.max, .min and .step is not supported for parameterType: categorical",
    ),
    (lambda e: e["spec"].pop("trialTemplate"), "spec.trialTemplate: Required value"),
    (lambda e: template(e).pop("primaryContainerName"), "spec.trialTemplate.primaryContainerName: Required value"),
    (lambda e: template(e)["trialSpec"].update(kind="Workflow"), "successCondition and failureCondition must be"),
    (lambda e: template(e).pop("trialParameters"), "spec.trialTemplate.trialParameters: Required value"),
    (lambda e: template(e).pop("trialSpec"), "trialSpec or spec.trialTemplate.configMap must be specified"),
    (
        lambda e: template(e).update(configMap={"configMapName": "a", "configMapNamespace": "b", "templatePath": "c"}),
        "only one of spec.trialTemplate.trialSpec or spec.trialTemplate.configMap can be specified",
    ),
    (lambda e: template(e)["trialParameters"][0].update(name=""), "name must be specified and can't contain"),
    (lambda e: template(e)["trialParameters"][0].update(name="a{"), "name must be specified and can't contain"),
    (lambda e: template(e)["trialParameters"][0].pop("reference"), "trialParameters[0].reference: Required value"),
    (
        lambda e: template(e)["trialParameters"].append({"name": "rate", "reference": "lr"}),
        "parameter name rate can't be duplicated",
    ),
    (lambda e: template(e)["trialParameters"][0].update(reference="momentum"), "momentum does not exist in"),
    (lambda e: template(e)["trialParameters"][0].update(name="other"), "other does not exist in the trial template"),
    (lambda e: container(e).update(args=["${trialParameters.more}"]), "['more'] in spec.trialTemplate not found"),
    (lambda e: template(e)["trialSpec"].update(metadata={"name": "x"}), "metadata.name must be omitted"),
    (lambda e: template(e)["trialSpec"].pop("apiVersion"), "APIVersion and Kind must be specified"),
    (
        lambda e: template(e)["trialSpec"].update(apiVersion="batch/v2"),
        'no matches for kind "Job" in version "batch/v2"',
    ),
    (lambda e: job_spec(e).update(backofLimit=0), 'batch/v1, Kind=Job: unknown field "spec.backofLimit"'),
    (lambda e: job_spec(e).update(backoffLimit="0"), "Go struct field JobSpec.spec.backoffLimit of type int32"),
    (lambda e: container(e).update(cmd=["x"]), 'unknown field "spec.template.spec.containers.cmd"'),
    (collector(kind="None"), "invalid metrics collector kind: None"),
    (collector(kind="PrometheusMetric"), "failed to find metrics collector config for kind: PrometheusMetric"),
    (collector(kind="File", fileSystemPath={"path": "m.log"}), "file path must be an absolute path"),
    (collector(kind="File", fileSystemPath={"format": "XML"}), "format must be TEXT or JSON"),
    (collector(kind="File", fileSystemPath={"kind": "Directory"}), "fileSystemPath.kind must be File"),
    (
        collector(kind="File", fileSystemPath={"format": "JSON"}, filter={"metricsFormat": ["(a)(b)"]}),
        "filter must be nil when format of fileSystemPath is JSON",
    ),
    (collector(filter={"metricsFormat": ["(a)"]}), "two top subexpressions are required"),
    (collector(filter={"metricsFormat": ["("]}), "invalid filter"),
]


@pytest.mark.parametrize(("change", "text"), REFUSALS)
def test_a_mistake_is_refused_in_katibs_words(
    registry: Registry, experiment: Object, change: Change, text: str
) -> None:
    change(experiment)
    with pytest.raises(ApiError) as caught:
        registry.create(EXPERIMENT, experiment)
    assert caught.value.code == 400
    assert text in caught.value.message


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


def test_only_the_three_counts_can_be_edited(registry: Registry, experiment: Object) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    stored["spec"]["maxTrialCount"] = 9
    stored = registry.update(EXPERIMENT, stored)
    stored["spec"]["algorithm"]["algorithmName"] = "tpe"
    with pytest.raises(ApiError) as caught:
        registry.update(EXPERIMENT, stored)
    assert caught.value.message == (
        f"{DENIED}spec: Forbidden: only spec.parallelTrialCount, spec.maxTrialCount and "
        "spec.maxFailedTrialCount are editable"
    )


def test_the_budget_must_stay_above_the_trials_there_are(registry: Registry, experiment: Object) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    stored["status"] = {"trials": 3}
    stored = registry.update_status(EXPERIMENT, stored)
    stored["spec"]["maxTrialCount"] = 3
    with pytest.raises(ApiError, match=r"must be greater than status\.trials count"):
        registry.update(EXPERIMENT, stored)


def test_a_completed_experiment_cannot_be_changed_unless_it_can_be_restarted(
    registry: Registry, experiment: Object
) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    done = {"type": "Succeeded", "status": "True", "reason": "ExperimentMaxTrialsReached"}
    stored["status"] = {"trials": 4, "conditions": [done]}
    stored = registry.update_status(EXPERIMENT, stored)
    stored["spec"]["maxTrialCount"] = 6
    with pytest.raises(ApiError, match="Experiment can be restarted if it is in succeeded state"):
        registry.update(EXPERIMENT, stored)
