"""What Katib's validator refuses, one row per rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from objects import Object
from refusal import Refusal, collector
from template_refusals import TEMPLATE_REFUSALS

_COLLECTOR = "spec.metricsCollectorSpec"
_FILE_PATH = f"{_COLLECTOR}.source.fileSystemPath.path: Required value: file path where metrics file exists is required"
_EVENTS = (
    f"{_COLLECTOR}.source: Required value: directory path where tensorflow event files exist is required by "
    ".spec.metricsCollectorSpec.source.fileSystemPath.path"
)
_HTTP = f"{_COLLECTOR}.source.httpGet"
_PROMETHEUS = "metrics collector kind: PrometheusMetric"
_NO_PROMETHEUS = (
    f'{_COLLECTOR}.collector.kind: Invalid value: "PrometheusMetric": GetMetricsCollectorConfigData failed: failed to '
    "find metrics collector config for kind: PrometheusMetric in ConfigMap: katib-config"
)
_BAD_PLACE = f'{_COLLECTOR}.source.fileSystemPath: Invalid value: "": .spec.metricsCollectorSpec.source is invalid'


def _space(type_: str, **space: Any) -> Callable[[Object], None]:
    return lambda e: e["spec"]["parameters"][0].update(parameterType=type_, feasibleSpace=space)


def _objective(**fields: Any) -> Callable[[Object], None]:
    return lambda e: e["spec"]["objective"].update(fields)


def _spec(**fields: Any) -> Callable[[Object], None]:
    return lambda e: e["spec"].update(fields)


def _no_algorithm(name: str) -> str:
    return (
        f'spec.algorithm.algorithmName: Invalid value: "{name}": unable to get Suggestion config data for algorithm '
        f"{name}: failed to find suggestion config for algorithm: {name} in ConfigMap: katib-config"
    )


def _no_early_stopping(name: str) -> str:
    return (
        f'spec.earlyStopping.algorithmName: Invalid value: "{name}": unable to get EarlyStopping config data for '
        f"algorithm {name}: failed to find early stopping config for algorithm: {name} in ConfigMap: katib-config"
    )


def _bad_name(name: str) -> str:
    return (
        f"metadata.name: Invalid value: \"{name}\": name must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', "
        "regex used for validation is '^[a-z]([-a-z0-9]*[a-z0-9])?)') and may not be longer than 40 characters. "
    )


def _counts(**counts: int) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        for name in ("parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"):
            obj["spec"].pop(name, None)
        obj["spec"].update(counts)

    return change


REFUSALS = (
    *TEMPLATE_REFUSALS,
    Refusal("name start", lambda e: e["metadata"].update(name="1exp"), _bad_name("1exp")),
    Refusal("name length", lambda e: e["metadata"].update(name="x" * 41), _bad_name("x" * 41)),
    Refusal(
        "negative maxFailedTrialCount",
        _spec(maxFailedTrialCount=-1),
        "spec.maxFailedTrialCount: Invalid value: -1: should not be less than 0",
    ),
    Refusal(
        "maxTrialCount zero",
        _counts(parallelTrialCount=1, maxTrialCount=0),
        (
            "spec.maxTrialCount: Invalid value: 0: must be greater than 0",
            "spec.parallelTrialCount: Invalid value: 1: should be less than or equal to spec.maxTrialCount",
        ),
    ),
    Refusal(
        "parallelTrialCount zero",
        _counts(parallelTrialCount=0),
        "spec.parallelTrialCount: Invalid value: 0: must be greater than 0",
    ),
    Refusal(
        "maxFailedTrialCount above maxTrialCount",
        _counts(parallelTrialCount=2, maxTrialCount=4, maxFailedTrialCount=5),
        "spec.maxFailedTrialCount: Invalid value: 5: should be less than or equal to spec.maxTrialCount",
    ),
    Refusal(
        "the default parallelTrialCount above maxTrialCount",
        _counts(maxTrialCount=1),
        "spec.parallelTrialCount: Invalid value: 3: should be less than or equal to spec.maxTrialCount",
    ),
    Refusal(
        "resumePolicy",
        _spec(resumePolicy="Maybe"),
        'spec.resumePolicy: Invalid value: "Maybe": invalid ResumePolicyType',
    ),
    Refusal("no objective", lambda e: e["spec"].pop("objective"), "spec.objective: Required value: must be specified"),
    Refusal(
        "objective type",
        _objective(type="min"),
        'spec.objective.type: Invalid value: "min": must be minimize or maximize',
    ),
    Refusal(
        "no objective type",
        _objective(type=""),
        'spec.objective.type: Invalid value: "": must be minimize or maximize',
    ),
    Refusal(
        "no objectiveMetricName",
        _objective(objectiveMetricName=""),
        "spec.objective.objectiveMetricName: Required value: must be specified",
    ),
    Refusal(
        "the objective among the additional metrics",
        lambda e: _objective(additionalMetricNames=["a", e["spec"]["objective"]["objectiveMetricName"]])(e),
        lambda e: (
            f'spec.objective.additionalMetricNames: Invalid value: ["a","{e["spec"]["objective"]["objectiveMetricName"]}"]: '  # noqa: E501
            "should not contain spec.objective.objectiveMetricName"
        ),
    ),
    Refusal("no algorithm", lambda e: e["spec"].pop("algorithm"), "spec.algorithm: Required value: must be specified"),
    Refusal(
        "no algorithmName",
        _spec(algorithm={}),
        ("spec.algorithm.algorithmName: Required value: must be specified", _no_algorithm("")),
    ),
    Refusal("unknown algorithm", _spec(algorithm={"algorithmName": "magic"}), _no_algorithm("magic")),
    Refusal("unknown early stopping", _spec(earlyStopping={"algorithmName": "mean"}), _no_early_stopping("mean")),
    Refusal(
        "no early stopping name",
        _spec(earlyStopping={}),
        ("spec.earlyStopping.algorithmName: Required value: must be specified", _no_early_stopping("")),
    ),
    Refusal(
        "neither parameters nor nasConfig",
        _spec(parameters=[]),
        "spec: Required value: spec.parameters or spec.nasConfig must be specified",
    ),
    Refusal(
        "both parameters and nasConfig",
        _spec(nasConfig={}),
        "only one of spec.parameters and spec.nasConfig can be specified",
        is_whole=False,
    ),
    Refusal(
        "nasConfig",
        _spec(nasConfig={}, parameters=[]),
        "spec.nasConfig: Forbidden: this control plane does not search neural architectures",
    ),
    Refusal(
        "parameterType",
        _space("float", min="1", max="2"),
        'spec.parameters[0].parameterType: Invalid value: "float": parameterType: float is not supported',
    ),
    Refusal(
        "distribution",
        _space("double", min="1", max="2", distribution="beta"),
        'spec.parameters[0].feasibleSpace.distribution: Invalid value: "beta": distribution: beta is not supported',
    ),
    Refusal(
        "list of a double",
        _space("double", min="1", max="2", list=["1"]),
        'spec.parameters[0].feasibleSpace.list: Invalid value: ["1"]: feasibleSpace.list is not supported for '
        "parameterType: double",
    ),
    Refusal(
        "int without min",
        _space("int", max="2"),
        "spec.parameters[0].feasibleSpace.max: Required value: feasibleSpace.max or feasibleSpace.min must be "
        "specified for parameterType: int",
    ),
    Refusal(
        "double without a space",
        _space("double"),
        "spec.parameters[0].feasibleSpace.max: Required value: feasibleSpace.max or feasibleSpace.min must be "
        "specified for parameterType: double",
    ),
    Refusal(
        "categorical with min",
        _space("categorical", list=["a"], min="1"),
        'spec.parameters[0].feasibleSpace: Invalid value: {"min":"1","list":["a"],"distribution":"uniform"}: '
        "feasibleSpace .max, .min and .step is not supported for parameterType: categorical",
    ),
    Refusal(
        "discrete with step",
        _space("discrete", list=["1"], step="1"),
        'spec.parameters[0].feasibleSpace: Invalid value: {"list":["1"],"step":"1","distribution":"uniform"}: '
        "feasibleSpace .max, .min and .step is not supported for parameterType: discrete",
    ),
    Refusal(
        "collector None",
        collector("None"),
        f'{_COLLECTOR}.collector.kind: Invalid value: "None": invalid metrics collector kind: None',
    ),
    Refusal(
        "collector without a kind",
        _spec(metricsCollectorSpec={"collector": {}}),
        f'{_COLLECTOR}.collector.kind: Invalid value: "": invalid metrics collector kind: ',
    ),
    Refusal("PrometheusMetric", collector("PrometheusMetric"), _NO_PROMETHEUS),
    Refusal(
        "PrometheusMetric with a bad port and path",
        collector("PrometheusMetric", httpGet={"port": "http", "path": "metrics"}),
        (
            _NO_PROMETHEUS,
            f'{_HTTP}.port: Invalid value: "http": must be a positive integer value for {_PROMETHEUS}',
            f'{_HTTP}.path: Invalid value: "metrics": path is invalid for {_PROMETHEUS}',
        ),
    ),
    Refusal("File with a relative path", collector("File", fileSystemPath={"path": "m.log"}), _FILE_PATH),
    Refusal("File with kind Directory", collector("File", fileSystemPath={"kind": "Directory"}), _FILE_PATH),
    Refusal(
        "File with an unknown format",
        collector("File", fileSystemPath={"format": "XML"}),
        f"{_COLLECTOR}.source.fileSystemPath.format: Required value: format of metrics file is required for metrics "
        "collector",
    ),
    Refusal(
        "filter with JSON",
        collector("File", fileSystemPath={"format": "JSON"}, filter={"metricsFormat": ["(a)(b)"]}),
        f'{_COLLECTOR}.source.filter: Invalid value: "": filter must be nil when format of metrics file is json',
    ),
    Refusal("TensorFlowEvent with kind File", collector("TensorFlowEvent", fileSystemPath={"kind": "File"}), _EVENTS),
    Refusal(
        "TensorFlowEvent with a relative path", collector("TensorFlowEvent", fileSystemPath={"path": "x"}), _EVENTS
    ),
    Refusal(
        "TensorFlowEvent with a format",
        collector("TensorFlowEvent", fileSystemPath={"format": "TEXT"}),
        f'{_COLLECTOR}.source.fileSystemPath.format: Invalid value: "TEXT": must be empty',
    ),
    Refusal(
        "Custom without a container",
        collector("Custom"),
        f"{_COLLECTOR}.collector.customCollector: Required value: metrics collector kind: Custom is required",
    ),
    Refusal(
        "Custom with a relative path",
        collector("Custom", {"name": "c", "image": "i"}, fileSystemPath={"kind": "File", "path": "x"}),
        _BAD_PLACE,
    ),
    Refusal(
        "Custom without a kind of path",
        collector("Custom", {"name": "c", "image": "i"}, fileSystemPath={"path": "/x"}),
        _BAD_PLACE,
    ),
    Refusal(
        "filter that does not compile",
        collector("File", filter={"metricsFormat": ["("]}),
        f'{_COLLECTOR}.source.filter.metricsFormat: Invalid value: "(": invalid filter: error parsing regexp: missing '
        "closing ): `(`",
    ),
    Refusal(
        "filter with look-around",
        collector("File", filter={"metricsFormat": ["(?=a)(b)"]}),
        f'{_COLLECTOR}.source.filter.metricsFormat: Invalid value: "(?=a)(b)": invalid filter: error parsing regexp: '
        "invalid or unsupported Perl syntax: `(?=`",
    ),
    Refusal(
        "filter with one group",
        collector("File", filter={"metricsFormat": ["(a)"]}),
        f'{_COLLECTOR}.source.filter.metricsFormat: Invalid value: "(a)": two top subexpressions are required',
    ),
)
