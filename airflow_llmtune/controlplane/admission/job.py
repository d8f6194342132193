"""What the API server fills into the spec of a Job, and refuses in it, beyond its pod template. Pure.

The same rules hold for the Jobs inside a JobSet or a training runtime, which become Jobs later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import Cause, invalid_value, required_value
from airflow_llmtune.controlplane.apiserver.metadata import dns_label_causes

Object = dict[str, Any]

_LARGEST_INT32 = 2**31 - 1
_MOST_PARALLEL_INDEXES = 100_000
_COUNTS = (
    "parallelism",
    "completions",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
)
_IMMUTABLE = (
    "selector",
    "template",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)
_PATH_WITH_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/\S+")
_INDEXES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_INDEXED_ONLY = "requires indexed completion mode"


def default_job_spec(spec: Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    # The limits of the single indexes are meant to decide alone.
    spec.setdefault("backoffLimit", _LARGEST_INT32 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", ()):
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")


def job_spec_causes(path: str, spec: Object) -> list[Cause]:
    """What is wrong with a typed Job spec that has its defaults; its pods are looked at elsewhere, but for their
    restart policy.
    """
    causes = [
        invalid_value(f"{path}.{name}", spec[name], "must be greater than or equal to 0")
        for name in _COUNTS
        if spec.get(name, 0) < 0
    ]
    causes += _restart_policy_causes(path, spec)
    causes += choice_causes(f"{path}.completionMode", spec["completionMode"], ("Indexed", "NonIndexed"))
    causes += _index_causes(path, spec)
    replacements = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    causes += choice_causes(f"{path}.podReplacementPolicy", spec["podReplacementPolicy"], replacements)
    if "managedBy" in spec and not _PATH_WITH_DOMAIN.fullmatch(spec["managedBy"]):
        text = 'must be a domain-prefixed path (such as "acme.io/foo")'
        causes.append(invalid_value(f"{path}.managedBy", spec["managedBy"], text))
    for number, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        causes += _rule_causes(f"{path}.podFailurePolicy.rules[{number}]", rule, spec)
    return causes


def job_name_causes(name: str, spec: Object) -> list[Cause]:
    """The pods of an Indexed Job have its name and their index as their host's name."""
    longest = f"{name}-{spec.get('completions', 1) - 1}"
    if spec["completionMode"] != "Indexed" or not dns_label_causes("metadata.name", longest):
        return []
    text = f"will not be able to create pod with invalid DNS label: {longest}"
    return [invalid_value("metadata.name", name, text)]


def job_update_causes(spec: Object, old: Object, old_status: Object) -> list[Cause]:
    """What may not change; a suspended Job that has not started may get other labels and other places to run."""
    changed = [name for name in _IMMUTABLE if spec.get(name) != old.get(name)]
    if "template" in changed and old.get("suspend") and "startTime" not in old_status:
        changed = [name for name in changed if name != "template" or _fixed(spec) != _fixed(old)]
    if spec.get("completions") != old.get("completions") and not _may_scale(spec, old):
        changed.append("completions")
    return [invalid_value(f"spec.{name}", json.dumps(spec.get(name)), "field is immutable") for name in changed]


def _may_scale(spec: Object, old: Object) -> bool:
    """An Indexed Job grows and shrinks as long as each index has its pod."""
    return old.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")


def _fixed(spec: Object) -> Object:
    loose = {"nodeSelector", "affinity", "tolerations", "schedulingGates"}
    metadata = spec["template"].get("metadata") or {}
    return {
        "metadata": {key: value for key, value in metadata.items() if key not in {"labels", "annotations"}},
        "spec": {key: value for key, value in spec["template"]["spec"].items() if key not in loose},
    }


def _restart_policy_causes(path: str, spec: Object) -> list[Cause]:
    where = f"{path}.template.spec.restartPolicy"
    policy = spec["template"]["spec"].get("restartPolicy")
    if policy is None:
        return [required_value(where, 'valid values: "OnFailure", "Never"')]
    if policy == "OnFailure" and "podFailurePolicy" in spec:
        return [invalid_value(where, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return choice_causes(where, policy, ("OnFailure", "Never"))


def _index_causes(path: str, spec: Object) -> list[Cause]:
    if spec["completionMode"] == "Indexed":
        return _indexed_causes(path, spec)
    return [
        Cause(f"{path}.{name}", f"Invalid value: {json.dumps(spec[name])}: {_INDEXED_ONLY}")
        for name in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
        if name in spec
    ]


def _indexed_causes(path: str, spec: Object) -> list[Cause]:
    causes = []
    if "completions" not in spec:
        causes.append(required_value(f"{path}.completions", "when completion mode is Indexed"))
    if spec["parallelism"] > _MOST_PARALLEL_INDEXES:
        text = f"must be less than or equal to {_MOST_PARALLEL_INDEXES} when completion mode is Indexed"
        causes.append(invalid_value(f"{path}.parallelism", spec["parallelism"], text))
    if "maxFailedIndexes" in spec:
        if "backoffLimitPerIndex" not in spec:
            causes.append(required_value(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
        elif spec["maxFailedIndexes"] > spec.get("completions", _LARGEST_INT32):
            text = "must be less than or equal to completions"
            causes.append(invalid_value(f"{path}.maxFailedIndexes", spec["maxFailedIndexes"], text))
    if "successPolicy" in spec:
        causes += _success_causes(f"{path}.successPolicy.rules", spec["successPolicy"].get("rules") or [], spec)
    return causes


def _success_causes(path: str, rules: Sequence[Object], spec: Object) -> list[Cause]:
    if not rules:
        return [required_value(path, "at least one rules must be specified when the successPolicy is specified")]
    causes = []
    for number, rule in enumerate(rules):
        where, completions = f"{path}[{number}]", spec.get("completions", 0)
        if "succeededIndexes" not in rule and "succeededCount" not in rule:
            text = "at least one of succeededCount or succeededIndexes must be specified"
            causes.append(required_value(where, text))
        if not _INDEXES.fullmatch(rule.get("succeededIndexes", "0")):
            text = "must be a list of indexes and ranges of them, such as 1,3-5"
            causes.append(invalid_value(f"{where}.succeededIndexes", rule["succeededIndexes"], text))
        if not 0 <= rule.get("succeededCount", 0) <= completions:
            text = f"must be between 0 and {completions}, the number of specified completions"
            causes.append(invalid_value(f"{where}.succeededCount", rule["succeededCount"], text))
    return causes


def _rule_causes(path: str, rule: Object, spec: Object) -> list[Cause]:
    actions = ("Count", "FailIndex", "FailJob", "Ignore")
    causes = choice_causes(f"{path}.action", rule.get("action", ""), actions)
    if rule.get("action") == "FailIndex" and "backoffLimitPerIndex" not in spec:
        causes.append(invalid_value(f"{path}.action", "FailIndex", "requires the backoffLimitPerIndex to be set"))
    given = [name for name in ("onExitCodes", "onPodConditions") if rule.get(name)]
    if len(given) == 1:
        return [*causes, *_exit_code_causes(f"{path}.onExitCodes", rule.get("onExitCodes"))]
    text = (
        "specifying both OnExitCodes and OnPodConditions is not supported"
        if given
        else "specifying one of OnExitCodes and OnPodConditions is required"
    )
    return [*causes, Cause(path, f"Invalid value: {json.dumps(rule)}: {text}")]


def _exit_code_causes(path: str, requirement: Object | None) -> list[Cause]:
    if requirement is None:
        return []
    causes = choice_causes(f"{path}.operator", requirement.get("operator", ""), ("In", "NotIn"))
    values = requirement.get("values") or []
    if not values:
        causes.append(Cause(f"{path}.values", "Invalid value: []: at least one value is required"))
    elif 0 in values and requirement.get("operator") == "In":
        where = f"{path}.values[{values.index(0)}]"
        causes.append(invalid_value(where, 0, "must not be 0 for the In operator"))
    return causes


def choice_causes(path: str, value: str | None, choices: Sequence[str]) -> list[Cause]:
    if value is None or value in choices:
        return []
    listed = ", ".join(f'"{choice}"' for choice in choices)
    return [Cause(path, f'Unsupported value: "{value}": supported values: {listed}', "FieldValueNotSupported")]
