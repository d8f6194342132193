from __future__ import annotations

import pytest

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.resources.problems import Problems


def test_problems_are_told_all_at_once() -> None:
    problems = Problems()
    assert problems.number("lr", "fast") is None
    assert problems.integer("count", "1.5") is None
    assert problems.integer("rank", 0, at_least=1) is None
    assert problems.choice("algorithm_name", "radnom", ("random", "grid")) is None
    assert problems.mapping("env", ["a"]) == {}
    with pytest.raises(InvalidSpecError) as caught:
        problems.raise_if_any("Task tune")
    text = str(caught.value)
    assert text.startswith("Task tune has 5 mistakes:")
    for part in ("`lr`='fast'", "`count`='1.5'", "`rank`=0 is less than 1", "did you mean `random`?", "`env`="):
        assert part in text


def test_a_mistake_is_one_line_of_bounded_length_whatever_its_author_wrote() -> None:
    problems = Problems()
    problems.mapping("env.a\nb\u2028\x1b[31m", "x" * 9000)
    problems.add("a" * 9000, 10**5000, "r" * 9000, "f" * 9000)
    problems.choice("kind", {"a": [1]}, ("Job",))
    problems.integer("count", 10**5000)
    for error in problems.errors:
        assert str(error).isprintable()
        assert len(str(error)) < 1100
    assert problems.errors[0].argument == r"env.a\nb\u2028\x1b[31m"
    assert problems.errors[1].shown == "<a number of 16610 bits>"


@pytest.mark.parametrize("name", ["a", "a.b-1", "x" * 253])
def test_a_name_is_what_kubernetes_takes(name: str) -> None:
    problems = Problems()
    assert problems.name("service_account_name", name, "mend it") == name
    assert problems.errors == []


@pytest.mark.parametrize("name", ["", "None", "a_b", "-a", "a/../b", "x" * 254, "a\n", "\ud800", None, 7])
def test_what_kubernetes_takes_for_no_name_is_a_mistake(name: object) -> None:
    problems = Problems()
    assert problems.name("service_account_name", name, "mend it") is None
    assert [error.argument for error in problems.errors] == ["service_account_name"]


@pytest.mark.parametrize("name", [None, "", "default", "team-1", "1", "a" * 63])
def test_a_namespace_is_a_dns_label_or_left_out(name: str | None) -> None:
    problems = Problems()
    problems.namespace("namespace", name)
    assert problems.errors == []


@pytest.mark.parametrize("name", ["Team", "a_b", "-a", "a" * 64, "a/b", "../x", "default\n", 7, ["a"]])
def test_what_is_no_namespace_is_a_mistake(name: object) -> None:
    problems = Problems()
    problems.namespace("namespace", name)
    assert [error.argument for error in problems.errors] == ["namespace"]


def test_values_may_come_as_text() -> None:
    problems = Problems()
    assert problems.number("lr", "1e-3") == 0.001
    assert problems.integer("count", "12", at_least=1) == 12
    assert problems.choice("type", "minimize", ("minimize", "maximize")) == "minimize"
    assert problems.mapping("env", None) == {}
    problems.raise_if_any("Task tune")
