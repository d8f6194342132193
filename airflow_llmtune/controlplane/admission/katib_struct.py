"""The fields of Trials and Suggestions, and of what Katib's three kinds say in their status, for those who ask."""

from __future__ import annotations

from airflow_llmtune.controlplane.admission.experiment_struct import EXPERIMENT_SPEC
from airflow_llmtune.controlplane.admission.structs import ANY, ListOf, MapOf, Struct, fields_of

_ASSIGNMENTS = ListOf(Struct("ParameterAssignment", fields_of({"string": "name value"})))
_RULES = ListOf(Struct("EarlyStoppingRule", fields_of({"string": "name value comparison", "int32": "startStep"})))
_METRICS = ListOf(Struct("Metric", fields_of({"string": "name min max latest"})))
_OBSERVATION = Struct("Observation", {"metrics": _METRICS})
_TIMES = {
    **fields_of({"string": "startTime completionTime lastReconcileTime"}),
    "conditions": ListOf(
        Struct("Condition", fields_of({"string": "type status reason message lastUpdateTime lastTransitionTime"}))
    ),
}

EXPERIMENT_STATUS = Struct(
    "ExperimentStatus",
    {
        **_TIMES,
        "currentOptimalTrial": Struct(
            "OptimalTrial",
            {"bestTrialName": "string", "parameterAssignments": _ASSIGNMENTS, "observation": _OBSERVATION},
        ),
        **fields_of(
            {
                ListOf("string"): "runningTrialList pendingTrialList failedTrialList succeededTrialList "
                "killedTrialList earlyStoppedTrialList metricsUnavailableTrialList",
                "int32": "trials trialsSucceeded trialsFailed trialsKilled trialsPending trialsRunning "
                "trialsEarlyStopped trialMetricsUnavailable",
            }
        ),
    },
)

TRIAL_SPEC = Struct(
    "TrialSpec",
    {
        "objective": EXPERIMENT_SPEC.fields["objective"],
        "parameterAssignments": _ASSIGNMENTS,
        "earlyStoppingRules": _RULES,
        "runSpec": MapOf(ANY),
        "metricsCollector": EXPERIMENT_SPEC.fields["metricsCollectorSpec"],
        "retainRun": "bool",
        "primaryPodLabels": MapOf("string"),
        "primaryContainerName": "string",
        "successCondition": "string",
        "failureCondition": "string",
        "labels": MapOf("string"),
    },
)
TRIAL_STATUS = Struct("TrialStatus", {**_TIMES, "observation": _OBSERVATION})

SUGGESTION_SPEC = Struct(
    "SuggestionSpec",
    {
        "algorithm": EXPERIMENT_SPEC.fields["algorithm"],
        "earlyStopping": EXPERIMENT_SPEC.fields["earlyStopping"],
        "requests": "int32",
        "resumePolicy": EXPERIMENT_SPEC.fields["resumePolicy"],
    },
)
_SUGGESTED = Struct(
    "TrialAssignment",
    {
        "name": "string",
        "parameterAssignments": _ASSIGNMENTS,
        "earlyStoppingRules": _RULES,
        "labels": MapOf("string"),
    },
)
SUGGESTION_STATUS = Struct(
    "SuggestionStatus",
    {
        **_TIMES,
        "algorithmSettings": ListOf(Struct("AlgorithmSetting", fields_of({"string": "name value"}))),
        "suggestionCount": "int32",
        "suggestions": ListOf(_SUGGESTED),
    },
)
