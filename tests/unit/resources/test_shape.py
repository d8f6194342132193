from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.shape import check_plain


def check(value: Any, *named: str) -> list[tuple[str, str]]:
    """Whose kind's own check complains of ``named``."""
    problems = Problems()

    def check_kind() -> None:
        for argument in named:
            problems.add(argument, "x", "is wrong", "mend it")

    check_plain("", value, check_kind, problems)
    return [(error.argument, error.rule) for error in problems.errors]


@pytest.mark.parametrize("value", [{}, {"a": [1, 0.5, True, None, "x", {"b": []}]}, {"a": (1, 2)}, {"a": 10**400}])
def test_what_json_can_carry_is_no_mistake(value: Any) -> None:
    assert check(value) == []


@pytest.mark.parametrize(
    ("value", "argument", "rule"),
    [
        ({"a": {"b": [0, date(2026, 11, 22)]}}, "a.b[1]", "is no text, number or boolean"),
        ({"a": b"x"}, "a", "is no text, number or boolean"),
        ({"a": {1}}, "a", "is no text, number or boolean"),
        ({"a": Decimal(1)}, "a", "is no text, number or boolean"),
        ({"a": float("nan")}, "a", "is not a finite number"),
        ({"a": ["\ud800"]}, "a[0]", "has half a character, which no request can carry"),
        ({"a": {1: "x"}}, "a.1", "has a name that is no text"),
        ({None: {}}, "None", "has a name that is no text"),
        ({"\ud800": {}}, r"\ud800", "has a name that is no text"),
    ],
)
def test_what_json_cannot_carry_is_named(value: Any, argument: str, rule: str) -> None:
    assert check(value) == [(argument, rule)]


def test_what_the_kind_has_named_is_not_named_again() -> None:
    assert check({"a": {1}, "b": {1}}, "a") == [("a", "is wrong"), ("b", "is no text, number or boolean")]


def endless() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


def growing() -> list[Any]:
    value: list[Any] = []
    for _ in range(9):
        value = [value] * 9
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize("make", [endless, growing, deep])
def test_what_has_no_end_is_one_mistake_and_nothing_else_is_looked_for(make: Any) -> None:
    ((argument, rule),) = check({"a": make()}, "never")
    assert argument.startswith("a[0]")
    assert "levels deep" in rule
