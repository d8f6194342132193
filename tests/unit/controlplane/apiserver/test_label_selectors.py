from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.label_selectors import as_text, matches, selector_causes

Object = dict[str, Any]


def expression(operator: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": "tier", "operator": operator, **({"values": list(values)} if values else {})}]}


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({"matchLabels": {"app": "web"}}, {"app": "web", "more": "x"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        ({"matchLabels": {"app": "web"}}, None, False),
        ({"matchLabels": {"app": "web", "b": "c"}}, {"app": "web"}, False),
        (expression("In", "a", "b"), {"tier": "b"}, True),
        (expression("In", "a", "b"), {}, False),
        (expression("NotIn", "a"), {"tier": "a"}, False),
        (expression("NotIn", "a"), {}, True),
        (expression("Exists"), {"tier": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {"tier": "a"}, False),
        (expression("DoesNotExist"), {}, True),
        ({"matchLabels": {"app": "web"}} | expression("Exists"), {"app": "web"}, False),
        ({}, {"anything": "x"}, True),
    ],
)
def test_labels_match_when_all_requirements_hold(selector: Object, labels: Object | None, expected: bool) -> None:
    assert matches(selector, labels) is expected


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchLabels": {"app": "web"}} | expression("In", "b", "a"), "app=web,tier in (a,b)"),
        (expression("NotIn", "a"), "tier notin (a)"),
        (expression("Exists"), "tier"),
        (expression("DoesNotExist"), "!tier"),
    ],
)
def test_a_selector_is_written_as_a_query_has_it(selector: Object, text: str) -> None:
    assert as_text(selector) == text


@pytest.mark.parametrize(
    ("selector", "field", "message"),
    [
        ({"matchLabels": {"a": "-"}}, "s.matchLabels", "a valid label must be"),
        (expression("Near"), "s.matchExpressions[0].operator", 'Invalid value: "Near": not a valid selector operator'),
        (
            expression("In"),
            "s.matchExpressions[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            expression("Exists", "a"),
            "s.matchExpressions[0].values",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        ({"matchExpressions": [{"operator": "Exists"}]}, "s.matchExpressions[0].key", "name part must consist"),
    ],
)
def test_a_mistake_in_a_selector_is_told(selector: Object, field: str, message: str) -> None:
    (cause,) = selector_causes("s", selector)
    assert cause.field == field
    assert message in cause.message


@pytest.mark.parametrize("selector", [{}, {"matchLabels": {"a": ""}}, expression("In", "a"), expression("Exists")])
def test_a_selector_without_mistakes_is_taken(selector: Object) -> None:
    assert selector_causes("s", selector) == []
