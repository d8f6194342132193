"""The fields of ``kubeflow.org/v1beta1`` Experiment.spec and their types; whatever else is sent is dropped."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.job_struct import POD_SPEC
from airflow_llmtune.controlplane.admission.structs import ANY, FieldType, ListOf, MapOf, Named, Struct


def _container() -> FieldType:
    containers = POD_SPEC.fields["containers"]
    return containers.item if isinstance(containers, ListOf) else ANY


def _settings(owner: str) -> ListOf:
    return ListOf(Struct(f"{owner}Setting", {"name": "string", "value": "string"}))


_FEASIBLE_SPACE = Struct(
    "FeasibleSpace",
    {
        "max": "string",
        "min": "string",
        "list": ListOf("string"),
        "step": "string",
        "distribution": Named("Distribution", "string"),
    },
)

PARAMETERS = ListOf(
    Struct(
        "ParameterSpec",
        {"name": "string", "parameterType": Named("ParameterType", "string"), "feasibleSpace": _FEASIBLE_SPACE},
    )
)

_METRIC_STRATEGY = Struct("MetricStrategy", {"name": "string", "value": Named("MetricStrategyType", "string")})

_OBJECTIVE = Struct(
    "ObjectiveSpec",
    {
        "type": Named("ObjectiveType", "string"),
        "goal": "float64",
        "objectiveMetricName": "string",
        "additionalMetricNames": ListOf("string"),
        "metricStrategies": ListOf(_METRIC_STRATEGY),
    },
)

_HTTP_GET = Struct(
    "v1.HTTPGetAction",
    {"path": "string", "port": ANY, "host": "string", "scheme": "string", "httpHeaders": ListOf(ANY)},
)

_FILE_SYSTEM_PATH = Struct(
    "FileSystemPath",
    {"path": "string", "kind": Named("FileSystemKind", "string"), "format": Named("FileFormat", "string")},
)

_METRICS_COLLECTOR = Struct(
    "MetricsCollectorSpec",
    {
        "source": Struct(
            "SourceSpec",
            {
                "httpGet": _HTTP_GET,
                "fileSystemPath": _FILE_SYSTEM_PATH,
                "filter": Struct("FilterSpec", {"metricsFormat": ListOf("string")}),
            },
        ),
        "collector": Struct(
            "CollectorSpec", {"kind": Named("CollectorKind", "string"), "customCollector": _container()}
        ),
    },
)

TRIAL_PARAMETERS = ListOf(
    Struct("TrialParameterSpec", {"name": "string", "description": "string", "reference": "string"})
)

_TRIAL_TEMPLATE = Struct(
    "TrialTemplate",
    {
        "retain": "bool",
        "trialSpec": MapOf(ANY),
        "configMap": Struct(
            "ConfigMapSource",
            {"configMapName": "string", "configMapNamespace": "string", "templatePath": "string"},
        ),
        "trialParameters": TRIAL_PARAMETERS,
        "primaryPodLabels": MapOf("string"),
        "primaryContainerName": "string",
        "successCondition": "string",
        "failureCondition": "string",
    },
)

_NAS_CONFIG = Struct(
    "NasConfig",
    {
        "graphConfig": Struct(
            "GraphConfig",
            {"numLayers": "int32", "inputSizes": ListOf("int32"), "outputSizes": ListOf("int32")},
        ),
        "operations": ListOf(Struct("Operation", {"operationType": "string", "parameters": PARAMETERS})),
    },
)

EXPERIMENT_SPEC = Struct(
    "ExperimentSpec",
    {
        "parameters": PARAMETERS,
        "objective": _OBJECTIVE,
        "algorithm": Struct("AlgorithmSpec", {"algorithmName": "string", "algorithmSettings": _settings("Algorithm")}),
        "earlyStopping": Struct(
            "EarlyStoppingSpec", {"algorithmName": "string", "algorithmSettings": _settings("EarlyStopping")}
        ),
        "trialTemplate": _TRIAL_TEMPLATE,
        "parallelTrialCount": "int32",
        "maxTrialCount": "int32",
        "maxFailedTrialCount": "int32",
        "metricsCollectorSpec": _METRICS_COLLECTOR,
        "nasConfig": _NAS_CONFIG,
        "resumePolicy": Named("ResumePolicyType", "string"),
    },
)
