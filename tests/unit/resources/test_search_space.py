from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.exceptions import InvalidSpecError, OutcomeError
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import (
    SearchSpace,
    categorical,
    discrete,
    double,
    integer,
    log_uniform,
)


def read(mapping: Any) -> SearchSpace:
    problems = Problems()
    space = SearchSpace.from_json(mapping, problems)
    problems.raise_if_any("The search space")
    return space


def mistakes(mapping: Any) -> list[tuple[str, str]]:
    problems = Problems()
    SearchSpace.from_json(mapping, problems)
    return [(error.argument, error.rule) for error in problems.errors]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (double(0, 1), {"type": "double", "min": 0, "max": 1}),
        (double(0, 1, step=0.1), {"type": "double", "min": 0, "max": 1, "step": 0.1}),
        (log_uniform(1e-5, 1e-3), {"type": "double", "min": 1e-5, "max": 1e-3, "distribution": "logUniform"}),
        (integer(1, 8, step=2), {"type": "int", "min": 1, "max": 8, "step": 2}),
        (categorical(["a", True]), {"type": "categorical", "values": ["a", True]}),
        (discrete([8, 16]), {"type": "discrete", "values": [8, 16]}),
    ],
)
def test_helpers_make_plain_json(made: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made == expected == json.loads(json.dumps(made))


def test_the_manifest_holds_all_numbers_as_text() -> None:
    space = read(
        {
            "learning_rate": log_uniform(1e-5, "0.001"),
            "warmup": double("0", "0.5", step="0.1"),
            "lora_r": integer("8", 64, step=8),
            "batch": discrete([8, 16.0, "32", 0.5]),
            "packing": categorical([True, "auto", 3, 0.25]),
        }
    )
    assert space.to_manifest() == [
        {"name": "learning_rate", "parameterType": "double",
         "feasibleSpace": {"min": "1e-05", "max": "0.001", "distribution": "logUniform"}},
        {"name": "warmup", "parameterType": "double", "feasibleSpace": {"min": "0.0", "max": "0.5", "step": "0.1"}},
        {"name": "lora_r", "parameterType": "int", "feasibleSpace": {"min": "8", "max": "64", "step": "8"}},
        {"name": "batch", "parameterType": "discrete", "feasibleSpace": {"list": ["8", "16", "32", "0.5"]}},
        {"name": "packing", "parameterType": "categorical",
         "feasibleSpace": {"list": ["true", "auto", "3", "0.25"]}},
    ]  # fmt: skip


def test_katibs_texts_become_typed_values() -> None:
    space = read(
        {
            "learning_rate": log_uniform(1e-5, 1e-3),
            "lora_r": integer(8, 64),
            "dropout": discrete([0, 0.05]),
            "packing": categorical([True, False, "auto", 3]),
        }
    )
    texts = {"learning_rate": "1", "lora_r": "16.0", "dropout": "0.05", "packing": "false", "other": "x"}
    decoded = space.decode(texts)
    assert decoded == {"learning_rate": 1.0, "lora_r": 16, "dropout": 0.05, "packing": False, "other": "x"}
    kinds = [type(value) for value in decoded.values()]
    assert kinds == [float, int, float, bool, str]
    assert isinstance(space.decode({"dropout": "0.0"})["dropout"], int)


@pytest.mark.parametrize(
    ("name", "text"),
    [("learning_rate", ""), ("learning_rate", "nan"), ("lora_r", "1.5"), ("packing", "True"), ("batch", "big")],
)
def test_a_text_that_is_no_value_of_its_parameter_is_an_error(name: str, text: str) -> None:
    space = read(
        {
            "learning_rate": log_uniform(1e-5, 1e-3),
            "lora_r": integer(8, 64),
            "packing": categorical([True, False]),
            "batch": discrete([1, 2]),
        }
    )
    with pytest.raises(OutcomeError, match=f"`{name}`='{text}'"):
        space.decode({name: text})


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ({"a": integer(1, 3)}, 3),
        ({"a": integer(1, 8, step=2)}, 4),
        ({"a": double(0, 0.3, step=0.1)}, 4),
        ({"a": double(0, 1, step=0.3)}, 4),
        ({"a": double(0, 1)}, None),
        ({"a": discrete([1, 2]), "b": categorical(["x", "y", "z"]), "c": integer(0, 1)}, 12),
        ({"a": discrete([1, 2]), "b": double(0, 1)}, None),
    ],
)
def test_the_size_of_a_grid_is_counted(parameters: dict[str, Any], size: int | None) -> None:
    assert read(parameters).size() == size


@pytest.mark.parametrize(
    ("parameter", "argument", "rule"),
    [
        ({"type": "double", "min": 1}, "p.max", "is missing"),
        ({"type": "double", "min": "x", "max": 1}, "p.min", "is not a finite number"),
        ({"type": "double", "min": 0, "max": "inf"}, "p.max", "is not a finite number"),
        ({"type": "double", "min": 0, "max": float("nan")}, "p.max", "is not a finite number"),
        ({"type": "double", "min": True, "max": 2}, "p.min", "is not a finite number"),
        ({"type": "double", "min": 1, "max": 1}, "p.min", "is not less than max"),
        ({"type": "double", "min": -1e308, "max": 1e308}, "p.max", "is more than 1e+300 above min"),
        ({"type": "int", "min": 0, "max": 10**305}, "p.max", "is more than 1e+300 above min"),
        ({"type": "double", "min": 0, "max": 1, "step": 1e-300}, "p.step", "is too small for the range"),
        ({"type": "categorical", "values": ["a\0"]}, "p.values[0]", "is not a text, a boolean or a finite number"),
        ({"type": "int", "min": 0.5, "max": 2}, "p.min", "is not a whole number"),
        ({"type": "int", "min": 1, "max": 9, "step": 0.5}, "p.step", "is not a whole number"),
        ({"type": "int", "min": 1, "max": 9, "step": 0}, "p.step", "is not above 0"),
        ({"type": "double", "min": 0, "max": 1, "step": -1}, "p.step", "is not above 0"),
        ({"type": "double", "min": 0, "max": 1, "step": 2}, "p.step", "is larger than the range"),
        ({"type": "double", "min": 0, "max": 1, "distribution": "logUniform"}, "p.min", "must be above 0"),
        ({"type": "int", "min": -1, "max": 1, "distribution": "logNormal"}, "p.min", "must be above 0"),
        ({"type": "double", "min": 0, "max": 1, "distribution": "loguniform"}, "p.distribution", "is not known"),
        ({"type": "float", "min": 0, "max": 1}, "p.type", "is not known"),
        ({"min": 0, "max": 1}, "p.type", "is not known"),
        ({"type": "double", "min": 0, "max": 1, "steps": 2}, "p.steps", "is not known for type double"),
        ({"type": "discrete", "values": [1], "min": 1}, "p.min", "is not known for type discrete"),
        ({"type": "discrete"}, "p.values", "is not a list"),
        ({"type": "discrete", "values": "123"}, "p.values", "is not a list"),
        ({"type": "categorical", "values": []}, "p.values", "is not a list with at least one"),
        ({"type": "discrete", "values": [1, "x"]}, "p.values[1]", "is not a finite number"),
        ({"type": "discrete", "values": [1, "1.0"]}, "p.values[1]", "is listed twice"),
        ({"type": "categorical", "values": [1, "1"]}, "p.values[1]", "is listed twice"),
        ({"type": "categorical", "values": [None]}, "p.values[0]", "is not a text"),
        ({"type": "categorical", "values": [float("inf")]}, "p.values[0]", "is not a text"),
        ({"type": "categorical", "values": ['a"b']}, "p.values[0]", "contains '\"'"),
        ({"type": "categorical", "values": ["a\\b"]}, "p.values[0]", "text substitution"),
        ({"type": "categorical", "values": ["$(HOME)"]}, "p.values[0]", "text substitution"),
        ({"type": "categorical", "values": ["two\nlines"]}, "p.values[0]", "text substitution"),
        ([1, 2], "p", "is not a parameter"),
        ("{{ params.space }}", "p", "is not a parameter"),
    ],
)
def test_each_mistake_is_named(parameter: Any, argument: str, rule: str) -> None:
    found = mistakes({"p": parameter, "good": integer(1, 2)})
    assert len(found) == 1, found
    assert found[0][0] == f"parameters.{argument}"
    assert rule in found[0][1]


@pytest.mark.parametrize("mapping", [{}, None, [], "text", [integer(1, 2)]])
def test_an_empty_space_is_a_mistake(mapping: Any) -> None:
    assert mistakes(mapping) == [("parameters", "is not a mapping with at least one parameter")]


@pytest.mark.parametrize("name", ["", "a b", "1st", "a.b", "${x}", "a-b", "_a", 3])
def test_a_bad_name_is_a_mistake(name: Any) -> None:
    assert mistakes({name: integer(1, 2)}) == [(f"parameters.{name}", "is not a valid name")]


def test_a_search_space_with_five_mistakes_gives_one_error_naming_all_five() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        read(
            {
                "learning rate": log_uniform(1e-5, 1e-3),
                "lora_r": integer(64, 8),
                "dropout": {"type": "double", "min": 0, "max": "high"},
                "batch": {"type": "discret", "values": [8, 16]},
                "scheduler": {"type": "categorical", "values": ["cosine", "cosine"]},
            }
        )
    text = str(caught.value)
    assert text.startswith("The search space has 5 mistakes:")
    for number, part in enumerate(
        [
            "`parameters.learning rate`='learning rate' is not a valid name",
            "`parameters.lora_r.min`=64 is not less than max=8. Fix: give min < max",
            "`parameters.dropout.max`='high' is not a finite number",
            "`parameters.batch.type`='discret' is not known. Fix: did you mean `discrete`?",
            "`parameters.scheduler.values[1]`='cosine' is listed twice",
        ],
        1,
    ):
        assert f"{number}. {part}" in text


def test_one_parameter_with_several_mistakes_tells_them_all() -> None:
    parameter = {"type": "int", "min": 0.5, "max": "x", "step": 0, "distribution": "log", "stepp": 1}
    assert len(mistakes({"p": parameter})) == 5


def test_a_step_is_not_compared_with_a_range_that_is_wrong_itself() -> None:
    assert len(mistakes({"p": {"type": "int", "min": 9, "max": 1, "step": 100}})) == 1


finite_floats = st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters='"\\$'), max_size=20)
doubles = st.lists(finite_floats, min_size=2, max_size=2, unique=True).map(lambda ends: double(*sorted(ends)))
integers = st.lists(st.integers(), min_size=2, max_size=2, unique=True).map(lambda ends: integer(*sorted(ends)))
discretes = st.lists(finite_floats | st.integers(-1000, 1000), min_size=1, unique_by=float).map(discrete)
categoricals = st.lists(words, min_size=1, unique=True).map(categorical)
spaces = st.dictionaries(names, doubles | integers | discretes | categoricals, min_size=1, max_size=6)


@given(spaces, st.randoms(use_true_random=False))
def test_values_survive_the_way_through_katib(mapping: dict[str, Any], rng: random.Random) -> None:
    space = read(json.loads(json.dumps(mapping)))
    texts, expected = {}, {}
    for entry in space.to_manifest():
        given_space, feasible = mapping[entry["name"]], entry["feasibleSpace"]
        assert all(isinstance(text, str) for text in feasible.get("list", [feasible.get("min")]))
        options = given_space.get("values") or [given_space["min"], given_space["max"]]
        index = rng.randrange(len(options))
        texts[entry["name"]] = (feasible.get("list") or [feasible.get("min"), feasible.get("max")])[index]
        expected[entry["name"]] = options[index]
    decoded = space.decode(texts)
    assert decoded == expected
    for name, value in decoded.items():
        type_ = mapping[name]["type"]
        assert isinstance(value, {"double": float, "int": int, "discrete": int | float, "categorical": str}[type_])
        assert not isinstance(value, float) or math.isfinite(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["type", "min", "max", "step", "distribution", "values", "valeus"])
types = st.fixed_dictionaries({"type": st.sampled_from(["double", "int", "categorical", "discrete", "x"])})


@given(st.dictionaries(names, st.tuples(types, st.dictionaries(keys, json_values, max_size=5)), max_size=3))
def test_any_json_is_either_read_or_explained(mapping: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
    problems = Problems()
    given_space = {name: {**rest, **type_} for name, (type_, rest) in mapping.items()}
    space = SearchSpace.from_json(given_space, problems)
    assert problems.errors or len(space.parameters) == len(given_space) > 0
    for error in problems.errors:
        assert str(error)
