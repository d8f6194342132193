"""Pruning, defaults and validation by the schema of a definition."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.structural import causes, fill_defaults, prune

OPEN = {"x-kubernetes-preserve-unknown-fields": True}


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "value", "left", "dropped"),
    [
        (of(a={"type": "string"}), {"a": "x", "b": 1}, {"a": "x"}, ["b"]),
        (of(a=of(b={})), {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, ["a.c"]),
        (of(a={"type": "array", "items": of(b={})}), {"a": [{"c": 1}, {"b": 2}]}, {"a": [{}, {"b": 2}]}, ["a[0].c"]),
        (
            of(a={"type": "object", "additionalProperties": of(b={})}),
            {"a": {"k": {"b": 1, "c": 2}}},
            {"a": {"k": {"b": 1}}},
            ["a[k].c"],
        ),
        (of(a={"type": "object", "additionalProperties": True}), {"a": {"k": 1}}, {"a": {"k": 1}}, []),
        ({**of(a=of(b={})), **OPEN}, {"a": {"c": 2}, "z": 1}, {"a": {}, "z": 1}, ["a.c"]),
        (of(a={"type": "object", **OPEN}), {"a": {"c": {"d": 2}}}, {"a": {"c": {"d": 2}}}, []),
        (
            of(t={**of(spec={}), "x-kubernetes-embedded-resource": True}),
            {"t": {"apiVersion": "v1", "kind": "X", "metadata": {}, "other": 1}},
            {"t": {"apiVersion": "v1", "kind": "X", "metadata": {}}},
            ["t.other"],
        ),
    ],
)
def test_fields_the_schema_does_not_have_are_dropped(schema: Any, value: Any, left: Any, dropped: list[str]) -> None:
    assert prune(value, schema) == dropped
    assert value == left


def test_an_object_keeps_its_head_whatever_the_schema_says() -> None:
    value = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "spec": {}}
    assert prune(value, of(), is_object=True) == ["spec"]
    assert value == {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}


def test_defaults_fill_what_is_absent_or_null_at_every_depth() -> None:
    schema = of(a={**of(b={"default": 1}), "default": {}}, l={"type": "array", "items": of(c={"default": "x"})})
    value: dict[str, Any] = {"l": [{}, {"c": None}, {"c": "y"}]}
    fill_defaults(value, schema)
    assert value == {"a": {"b": 1}, "l": [{"c": "x"}, {"c": "x"}, {"c": "y"}]}


@pytest.mark.parametrize(
    ("schema", "value", "field", "message"),
    [
        ({"type": "integer"}, "x", "f", 'Invalid value: "string": f in body must be of type integer: "string"'),
        ({"type": "string"}, None, "f", 'Invalid value: "null": f in body must be of type string: "null"'),
        ({"type": "integer"}, True, "f", 'Invalid value: "boolean": f in body must be of type integer: "boolean"'),
        (
            {"x-kubernetes-int-or-string": True},
            1.5,
            "f",
            'Invalid value: "number": f in body must be of type integer,string: "number"',
        ),
        ({"enum": ["s", "m"]}, "xl", "f", 'Unsupported value: "xl": supported values: "s", "m"'),
        ({"minimum": 1}, 0, "f", "Invalid value: 0: f in body should be greater than or equal to 1"),
        (
            {"minimum": 1, "exclusiveMinimum": True},
            1,
            "f",
            "Invalid value: 1: f in body should be greater than 1",
        ),
        ({"maximum": 1}, 2, "f", "Invalid value: 2: f in body should be less than or equal to 1"),
        ({"multipleOf": 5}, 7, "f", "Invalid value: 7: f in body should be a multiple of 5"),
        ({"pattern": "^a$"}, "b", "f", "Invalid value: \"b\": f in body should match '^a$'"),
        ({"minLength": 2}, "b", "f", 'Invalid value: "b": f in body should be at least 2 chars long'),
        ({"maxLength": 2}, "abc", "f", "Too long: may not be more than 2 bytes"),
        ({"minItems": 1}, [], "f", "Invalid value: 0: f in body should have at least 1 items"),
        ({"maxItems": 1}, [1, 2], "f", "Too many: 2: must have at most 1 items"),
        ({"x-kubernetes-list-type": "set"}, ["a", "a"], "f[1]", 'Duplicate value: "a"'),
        (
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
            [{"n": 1}, {"n": 1}],
            "f[1]",
            'Duplicate value: {"n":1}',
        ),
        ({"type": "object", "required": ["a"]}, {}, "f.a", "Required value"),
        ({"minProperties": 1}, {}, "f", "Invalid value: 0: f in body should have at least 1 properties"),
        ({"maxProperties": 0}, {"a": 1}, "f", "Too many: 1: must have at most 0 items"),
        (
            {"oneOf": [{"type": "string"}, {"enum": ["a"]}]},
            "a",
            "f",
            'Invalid value: "a": f in body must validate one and only one schema (oneOf)',
        ),
        (
            {"anyOf": [{"type": "integer"}]},
            "a",
            "f",
            'Invalid value: "a": f in body must validate at least one schema (anyOf)',
        ),
        ({"allOf": [{"enum": [1]}]}, 2, "f", 'Invalid value: "2": f in body must validate all the schemas (allOf)'),
        ({"not": {"enum": ["a"]}}, "a", "f", 'Invalid value: "a": f in body must not validate the schema (not)'),
    ],
)
def test_mistakes_are_told_as_the_api_server_words_them(schema: Any, value: Any, field: str, message: str) -> None:
    assert [(one.field, one.message) for one in causes({"f": value}, of(f=schema))] == [(field, message)]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 2.0),
        ({"type": "number"}, 2),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "50%"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1),
        ({"type": "array", "items": {"type": "string"}}, ["a"]),
        ({"pattern": r"^\p{Lu}\p{L}+$"}, "Größe"),
        ({"pattern": "b$"}, "ab"),
        ({}, None),
    ],
)
def test_what_fits_is_not_complained_about(schema: Any, value: Any) -> None:
    assert causes({"f": value}, of(f=schema)) == []


def test_all_mistakes_are_found_at_once_with_their_paths() -> None:
    schema = of(spec=of(l={"type": "array", "items": of(n={"type": "integer"})}, s={"type": "string"}))
    found = causes({"spec": {"l": [{"n": 1}, {"n": "x"}], "s": 1}}, schema)
    assert [one.field for one in found] == ["spec.l[1].n", "spec.s"]


def test_no_pattern_keeps_the_server_busy() -> None:
    (wrong,) = causes("a" * 10_000 + "!", {"pattern": "^(a+)+$"}, "f")
    assert wrong.message.endswith("f in body should match '^(a+)+$'")
