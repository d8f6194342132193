from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_llmtune.controlplane.admission.structs import ListOf, MapOf, Named, Struct, go_struct, unmarshal
from airflow_llmtune.controlplane.admission.trial_job import job_mistake
from airflow_llmtune.controlplane.go_text import go_float, go_json, go_value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1E-05", -0.00001),
        ("+Inf", math.inf),
        ("-infinity", -math.inf),
        ("", None),
        (" 1", None),
        ("1_000", None),
        ("1e999", None),
        ("+nan", None),
        ("Genotype(a)", None),
    ],
)
def test_numbers_are_read_as_gos_parse_float_does(text: str, number: float | None) -> None:
    assert go_float(text) == number


def test_nan_is_a_number_to_go() -> None:
    found = go_float("NaN")
    assert found is not None
    assert math.isnan(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<nil>"),
        (True, "true"),
        ([1, "a", None], "[1 a <nil>]"),
        ({"b": [], "a": {"c": False}}, "map[a:map[c:false] b:[]]"),
    ],
)
def test_untyped_values_are_printed_as_gos_verb_v_does(value: Any, text: str) -> None:
    assert go_value(value) == text


def test_json_is_safe_inside_html_as_gos_is() -> None:
    assert go_json({"b": "<&>", "a": ["é"]}, sort_keys=True) == '{"a":["é"],"b":"\\u003c\\u0026\\u003e"}'


PAIR = Struct("Pair", {"name": "string", "values": ListOf("string"), "kind": Named("Kind", "string")})


def test_typed_values_are_printed_with_their_zero_values() -> None:
    assert go_struct(ListOf(PAIR), [{"name": "a"}, {"values": ["x", "y"], "kind": "k"}]) == "[{a [] } { [x y] k}]"


def test_reading_keeps_gos_order_of_fields() -> None:
    assert list(unmarshal(PAIR, {"kind": "k", "other": 1, "name": "a", "values": None})) == ["name", "kind"]
    assert list(unmarshal(MapOf("string"), {"b": "", "a": ""})) == ["a", "b"]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("backoffLimit", "0", "unrecognized type: int32"),
        ("backoffLimit", 0.5, "cannot convert float64 to int32"),
        ("completionMode", 1, "cannot convert int64 to string"),
        ("completionMode", True, "unrecognized type: string"),
        ("suspend", "no", "unrecognized type: bool"),
        ("template", [], "cannot restore struct from: slice"),
    ],
)
def test_a_job_of_wrong_types_is_told_in_the_words_of_gos_converter(field: str, value: Any, error: str) -> None:
    told = job_mistake({"apiVersion": "batch/v1", "kind": "Job", "spec": {field: value}})
    assert told is not None
    assert told.startswith("unable to convert spec.TrialTemplate: map[apiVersion:batch/v1 kind:Job spec:map[")
    assert told.endswith(f"] to Job: {error}")
