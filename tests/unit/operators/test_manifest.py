from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.operators.manifest import read_manifest
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.problems import Problems


def read(value: Any) -> list[tuple[str, str]]:
    problems = Problems()
    assert read_manifest("experiment", value, experiment.check_manifest, problems) is not None
    return [(error.argument, error.rule) for error in problems.errors]


@pytest.mark.parametrize("text", ["", " ", "\n", "null", "~", "# to do", "7", "[]", "None"])
def test_a_text_without_a_manifest_is_a_mistake(text: str) -> None:
    assert read(text) == [("experiment", "is no manifest")]


@pytest.mark.parametrize("text", ["a: [", "a: \0", "a: 2026-99-99", "a: " + "1" * 5000, "[" * 5000, "{[a]: b}"])
def test_a_text_that_cannot_be_read_is_a_mistake(text: str) -> None:
    ((argument, rule),) = read(text)
    assert argument == "experiment"
    assert rule.startswith("is neither YAML nor JSON")


def test_an_alias_that_holds_itself_is_a_mistake() -> None:
    ((argument, rule),) = read("spec: &a {b: *a}")
    assert argument.startswith("spec.b.b")
    assert "levels deep" in rule


def test_what_yaml_makes_and_json_has_not_is_named_with_the_other_mistakes() -> None:
    found = read("spec: {objective: {type: minimize, goal: .nan}, 1: a, since: 2026-11-22}")
    assert ("spec.1", "has a name that is no text") in found
    assert ("spec.since", "is no text, number or boolean") in found
    assert [argument for argument, _ in found].count("spec.objective.goal") == 1
    assert ("spec.algorithm.algorithmName", "is missing") in found
