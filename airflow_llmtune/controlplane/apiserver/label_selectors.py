"""``LabelSelector`` objects, as workloads carry them in their spec: checked, matched, and written as a text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import Cause, forbidden_value, invalid_value, required_value
from airflow_llmtune.controlplane.apiserver.metadata import label_causes
from airflow_llmtune.controlplane.apiserver.selectors import Operator, Requirement

Object = dict[str, Any]

_OPERATORS: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_WITH_VALUES = frozenset({"In", "NotIn"})


def requirements(selector: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """Of a selector without mistakes; all must hold, and none is no requirement at all."""
    equal = (Requirement(key, "=", frozenset({value})) for key, value in (selector.get("matchLabels") or {}).items())
    others = (
        Requirement(one["key"], _OPERATORS[one["operator"]], frozenset(one.get("values") or ()))
        for one in selector.get("matchExpressions") or ()
    )
    return (*equal, *others)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str] | None) -> bool:
    return all(one.matches(labels or {}) for one in requirements(selector))


def as_text(selector: Mapping[str, Any]) -> str:
    """As a query writes it, in the order of its keys."""
    return ",".join(_text(one) for one in sorted(requirements(selector), key=lambda one: one.key))


def _text(one: Requirement) -> str:
    match one.operator:
        case "exists":
            return one.key
        case "!":
            return f"!{one.key}"
        case "in" | "notin":
            return f"{one.key} {one.operator} ({','.join(sorted(one.values))})"
        case _:
            return f"{one.key}{one.operator}{next(iter(one.values))}"


def selector_causes(path: str, selector: Mapping[str, Any]) -> list[Cause]:
    causes = label_causes(f"{path}.matchLabels", selector.get("matchLabels") or {})
    for index, one in enumerate(selector.get("matchExpressions") or ()):
        causes += _expression_causes(f"{path}.matchExpressions[{index}]", one)
    return causes


def _expression_causes(path: str, expression: Object) -> list[Cause]:
    operator, values = expression.get("operator", ""), expression.get("values")
    causes = []
    if operator not in _OPERATORS:
        causes.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    elif operator in _WITH_VALUES and not values:
        causes.append(required_value(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator not in _WITH_VALUES and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        causes.append(forbidden_value(f"{path}.values", text))
    return [*causes, *label_causes(f"{path}.key", {expression.get("key", ""): ""})]
