"""The fields of ``kubeflow.org/v1beta1`` Experiment.spec and their types; whatever else is sent is dropped."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct

_SETTINGS = ListOf(Struct("AlgorithmSetting", {"name": "string", "value": "string"}))

_FEASIBLE_SPACE = Struct(
    "FeasibleSpace",
    {
        "max": "string",
        "min": "string",
        "list": ListOf("string"),
        "step": "string",
        "distribution": "string",
    },
)

_PARAMETERS = ListOf(
    Struct("ParameterSpec", {"name": "string", "parameterType": "string", "feasibleSpace": _FEASIBLE_SPACE})
)

_OBJECTIVE = Struct(
    "ObjectiveSpec",
    {
        "type": "string",
        "goal": "float64",
        "objectiveMetricName": "string",
        "additionalMetricNames": ListOf("string"),
        "metricStrategies": ListOf(Struct("MetricStrategy", {"name": "string", "value": "string"})),
    },
)

_HTTP_GET = Struct(
    "HTTPGetAction",
    {"path": "string", "port": ANY, "host": "string", "scheme": "string", "httpHeaders": ListOf(ANY)},
)

_METRICS_COLLECTOR = Struct(
    "MetricsCollectorSpec",
    {
        "source": Struct(
            "SourceSpec",
            {
                "httpGet": _HTTP_GET,
                "fileSystemPath": Struct("FileSystemPath", {"path": "string", "kind": "string", "format": "string"}),
                "filter": Struct("FilterSpec", {"metricsFormat": ListOf("string")}),
            },
        ),
        "collector": Struct("CollectorSpec", {"kind": "string", "customCollector": ANY}),
    },
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
        "trialParameters": ListOf(
            Struct("TrialParameterSpec", {"name": "string", "description": "string", "reference": "string"})
        ),
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
        "operations": ListOf(Struct("Operation", {"operationType": "string", "parameters": _PARAMETERS})),
    },
)

EXPERIMENT_SPEC = Struct(
    "ExperimentSpec",
    {
        "parameters": _PARAMETERS,
        "objective": _OBJECTIVE,
        "algorithm": Struct("AlgorithmSpec", {"algorithmName": "string", "algorithmSettings": _SETTINGS}),
        "earlyStopping": Struct("EarlyStoppingSpec", {"algorithmName": "string", "algorithmSettings": _SETTINGS}),
        "trialTemplate": _TRIAL_TEMPLATE,
        "parallelTrialCount": "int32",
        "maxTrialCount": "int32",
        "maxFailedTrialCount": "int32",
        "metricsCollectorSpec": _METRICS_COLLECTOR,
        "nasConfig": _NAS_CONFIG,
        "resumePolicy": "string",
    },
)
