"""What the API server fills into Deployments and ReplicaSets, and refuses. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission.apps_struct import DEPLOYMENT_SPEC, REPLICA_SET_SPEC
from airflow_llmtune.controlplane.admission.job import choice_causes
from airflow_llmtune.controlplane.admission.kubernetes import default_pod_spec
from airflow_llmtune.controlplane.admission.pod_spec import pod_spec_causes, typed
from airflow_llmtune.controlplane.apiserver.errors import (
    Cause,
    bad_request,
    forbidden_value,
    invalid,
    invalid_value,
    required_value,
)
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, REPLICA_SET, Kind
from airflow_llmtune.controlplane.apiserver.label_selectors import matches, selector_causes
from airflow_llmtune.controlplane.apiserver.metadata import label_causes
from airflow_llmtune.controlplane.go_text import go_json

Object = dict[str, Any]

_LARGEST_INT32 = 2**31 - 1
_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_RULE = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
_ROLLING, _RECREATE = "RollingUpdate", "Recreate"


def admit_apps(kind: Kind, obj: Object) -> None:
    """In place; defaults come first, as the rules are for what they make of it."""
    check = _CHECKS.get(kind)
    if check is None or "deletionTimestamp" in obj["metadata"]:
        return  # Of an object that is going only finalizers change.
    causes = check(obj)
    if causes:
        raise invalid(kind, obj["metadata"]["name"], causes)


def _deployment(deployment: Object) -> list[Cause]:
    spec = deployment["spec"] = typed(DEPLOYMENT, DEPLOYMENT_SPEC, deployment)
    _default_workload(spec)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy["type"] = strategy.get("type") or _ROLLING
    if strategy["type"] == _ROLLING:
        update = strategy.setdefault("rollingUpdate", {})
        update.setdefault("maxUnavailable", "25%")
        update.setdefault("maxSurge", "25%")
        _check_types(update)
    return [*_workload_causes(spec), *_strategy_causes(strategy), *_deadline_causes(spec)]


def _replica_set(replica_set: Object) -> list[Cause]:
    spec = replica_set["spec"] = typed(REPLICA_SET, REPLICA_SET_SPEC, replica_set)
    _default_workload(spec)
    return _workload_causes(spec)


_CHECKS: dict[Kind, Callable[[Object], list[Cause]]] = {DEPLOYMENT: _deployment, REPLICA_SET: _replica_set}


def _default_workload(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    default_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}))


def _check_types(update: Object) -> None:
    """A number or a text; a typed decoder reads nothing else."""
    for value in update.values():
        if isinstance(value, bool) or not isinstance(value, int | str):
            got = {bool: "bool", list: "array", dict: "object"}.get(type(value), "number")
            raise bad_request(
                f'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal {got} into Go '
                "value of type int32"
            )


def _workload_causes(spec: Object) -> list[Cause]:
    return [*_not_negative("replicas", spec), *_not_negative("minReadySeconds", spec), *_selector_causes(spec)]


def _not_negative(name: str, spec: Object) -> list[Cause]:
    if spec.get(name, 0) >= 0:
        return []
    return [invalid_value(f"spec.{name}", spec[name], "must be greater than or equal to 0")]


def _selector_causes(spec: Object) -> list[Cause]:
    if "selector" not in spec:
        return [required_value("spec.selector", ""), *_template_causes(spec["template"])]
    selector = spec["selector"]
    causes = selector_causes("spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(Cause("spec.selector", "Invalid value: {}: empty selector is invalid for deployment"))
    elif not causes:
        labels = spec["template"].get("metadata", {}).get("labels") or {}
        if not matches(selector, labels):
            shown = go_json(labels, sort_keys=True)
            text = f"Invalid value: {shown}: `selector` does not match template `labels`"
            causes.append(Cause("spec.template.metadata.labels", text))
    return [*causes, *_template_causes(spec["template"])]


def _template_causes(template: Object) -> list[Cause]:
    path, spec = "spec.template.spec", template["spec"]
    causes = label_causes("spec.template.labels", template.get("metadata", {}).get("labels") or {})
    causes += pod_spec_causes(path, spec)
    causes += choice_causes(f"{path}.restartPolicy", spec["restartPolicy"], ("Always",))
    if "activeDeadlineSeconds" in spec:
        where, text = f"{path}.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
        causes.append(forbidden_value(where, text))
    return causes


def _strategy_causes(strategy: Object) -> list[Cause]:
    path = "spec.strategy.rollingUpdate"
    match strategy["type"]:
        case "Recreate" if "rollingUpdate" in strategy:
            return [forbidden_value(path, "may not be specified when strategy `type` is 'Recreate'")]
        case "RollingUpdate":
            return _rolling_causes(path, strategy["rollingUpdate"])
        case other:
            return choice_causes("spec.strategy.type", other, (_RECREATE, _ROLLING))


def _rolling_causes(path: str, update: Object) -> list[Cause]:
    causes = [cause for name in ("maxUnavailable", "maxSurge") for cause in _amount_causes(path, name, update[name])]
    unavailable = update["maxUnavailable"]
    if _number(unavailable) == _number(update["maxSurge"]) == 0:
        causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    if isinstance(unavailable, str) and _number(unavailable) > 100:
        causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))
    return causes


def _amount_causes(path: str, name: str, value: int | str) -> list[Cause]:
    if isinstance(value, str):
        return [] if _PERCENT.fullmatch(value) else [invalid_value(f"{path}.{name}", value, _PERCENT_RULE)]
    return [] if value >= 0 else [invalid_value(f"{path}.{name}", value, "must be greater than or equal to 0")]


def _number(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value[:-1]) if _PERCENT.fullmatch(value) else 0


def _deadline_causes(spec: Object) -> list[Cause]:
    deadline = spec["progressDeadlineSeconds"]
    causes = [*_not_negative("revisionHistoryLimit", spec), *_not_negative("progressDeadlineSeconds", spec)]
    if deadline <= spec.get("minReadySeconds", 0):
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes
