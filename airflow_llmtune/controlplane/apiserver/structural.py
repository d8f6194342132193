"""Structural schemas of CustomResourceDefinitions, as pure functions: pruning, defaults, validation.

The rules are the part of OpenAPI v3 that the API server takes in a definition; its expressions
(``x-kubernetes-validations``) are not evaluated.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2

from airflow_llmtune.controlplane.apiserver.errors import Cause, invalid_value

Schema = Mapping[str, Any]

_ALWAYS_KEPT = frozenset({"apiVersion", "kind", "metadata"})
_JSON_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def _keeps_unknown(schema: Schema) -> bool:
    return bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def _values(value: Any, schema: Schema) -> Iterator[tuple[str, str | int, Any, Schema | None]]:
    """What lies below a value: its place in words, its key, itself and its schema (None when it has none)."""
    if isinstance(value, list):
        items = schema.get("items")
        for index, one in enumerate(value):
            yield f"[{index}]", index, one, items if isinstance(items, Mapping) else None
    elif isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, one in value.items():
            below = properties.get(name, additional)
            if name in properties or not isinstance(additional, Mapping):
                yield f".{name}", name, one, below if isinstance(below, Mapping) else None
            else:
                yield f"[{name}]", name, one, additional


def prune(value: Any, schema: Schema, *, is_object: bool = False) -> list[str]:
    """Drop in place what the schema does not know; the paths of all that was dropped."""
    found = list(_unknown(value, schema, "", is_object=is_object))
    for owner, name, _ in found:
        del owner[name]
    return [path for _, _, path in found]


def unknown_fields(value: Any, schema: Schema, *, is_object: bool = False) -> list[str]:
    """The paths of what the schema does not know."""
    return [path for _, _, path in _unknown(value, schema, "", is_object=is_object)]


def _unknown(value: Any, schema: Schema, path: str, *, is_object: bool) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each with the object that holds it and its name there."""
    is_open = _keeps_unknown(schema) or schema.get("additionalProperties") is True
    for place, key, one, below in _values(value, schema):
        if is_object and key in _ALWAYS_KEPT:
            continue
        where = f"{path}{place}" if path else place.removeprefix(".")
        if below is not None:
            embedded = bool(below.get("x-kubernetes-embedded-resource"))
            yield from _unknown(one, below, where, is_object=embedded)
        elif isinstance(value, dict) and not is_open:
            yield value, str(key), where


def fill_defaults(value: Any, schema: Schema) -> None:
    if isinstance(value, dict):
        for name, below in (schema.get("properties") or {}).items():
            absent = name not in value or (value[name] is None and not below.get("nullable"))
            if "default" in below and absent:
                value[name] = copy.deepcopy(below["default"])
    for _, _, one, below in _values(value, schema):
        if below is not None:
            fill_defaults(one, below)


def causes(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """All that is wrong with a value, in the API server's words."""
    if value is None and schema.get("nullable"):
        return []
    wrong = _type_cause(value, schema, path)
    if wrong is not None:
        return [wrong]
    found = [*_enum_causes(value, schema, path), *_junctor_causes(value, schema, path)]
    if isinstance(value, str):
        found += _text_causes(value, schema, path)
    elif isinstance(value, list):
        found += _list_causes(value, schema, path)
    elif isinstance(value, dict):
        found += _object_causes(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found += _number_causes(value, schema, path)
    for place, key, one, below in _values(value, schema):
        if below is not None and (path or key not in _ALWAYS_KEPT):
            found += causes(one, below, f"{path}{place}".lstrip("."))
    return found


def _type_cause(value: Any, schema: Schema, path: str) -> Cause | None:
    wanted = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        wanted = "integer,string"
    elif not wanted:
        return None
    else:
        got = _JSON_NAMES.get(type(value), "null")
        fits = got == wanted or (wanted == "number" and got == "integer")
        fits = fits or (wanted == "integer" and isinstance(value, float) and value.is_integer())
    if fits:
        return None
    got = _JSON_NAMES.get(type(value), "null")
    message = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return Cause(path, message, "FieldValueTypeInvalid")


def _enum_causes(value: Any, schema: Schema, path: str) -> list[Cause]:
    allowed = schema.get("enum")
    if allowed is None or value in allowed:
        return []
    listed = ", ".join(json.dumps(one) for one in allowed)
    message = f"Unsupported value: {json.dumps(value)}: supported values: {listed}"
    return [Cause(path, message, "FieldValueNotSupported")]


def _text_causes(value: str, schema: Schema, path: str) -> list[Cause]:
    found = []
    if len(value) < schema.get("minLength", 0):
        found.append(invalid_value(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    longest = schema.get("maxLength")
    if longest is not None and len(value) > longest:
        found.append(Cause(path, f"Too long: may not be more than {longest} bytes", "FieldValueTooLong"))
    pattern = schema.get("pattern")
    if pattern and not _compiled(pattern).search(value):
        found.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    return found


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """As Go reads it: it never goes back over the text, so that no pattern can keep the server busy."""
    options = re2.Options()
    options.log_errors = False  # The library would write to stderr what the caller is told anyway.
    return re2.compile(pattern, options)


def pattern_mistake(pattern: str) -> str:
    """Why it cannot be read; empty when it can."""
    try:
        _compiled(pattern)
    except re2.error as error:
        return str(error.args[0].decode())
    return ""


def _number_causes(value: float, schema: Schema, path: str) -> list[Cause]:
    found = []
    least, most, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        words = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        found.append(invalid_value(path, value, f"{path} in body should be {words} {least}"))
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        words = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        found.append(invalid_value(path, value, f"{path} in body should be {words} {most}"))
    if step and abs(value / step - round(value / step)) > 1e-9:
        found.append(invalid_value(path, value, f"{path} in body should be a multiple of {step}"))
    return found


def _list_causes(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    found = []
    if len(value) < schema.get("minItems", 0):
        found.append(invalid_value(path, len(value), f"{path} in body should have at least {schema['minItems']} items"))
    most = schema.get("maxItems")
    if most is not None and len(value) > most:
        found.append(Cause(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany"))
    seen: list[Any] = []
    for index, one in enumerate(value if schema.get("x-kubernetes-list-type") in {"map", "set"} else ()):
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        key = {name: one.get(name) for name in keys} if isinstance(one, dict) and keys else one
        if key in seen:
            message = f"Duplicate value: {json.dumps(key, separators=(',', ':'))}"
            found.append(Cause(f"{path}[{index}]", message, "FieldValueDuplicate"))
        seen.append(key)
    return found


def _object_causes(value: dict[str, Any], schema: Schema, path: str) -> list[Cause]:
    found = [
        Cause(f"{path}.{name}".lstrip("."), "Required value", "FieldValueRequired")
        for name in schema.get("required") or ()
        if name not in value
    ]
    least, most = schema.get("minProperties", 0), schema.get("maxProperties")
    if len(value) < least:
        found.append(invalid_value(path, len(value), f"{path} in body should have at least {least} properties"))
    if most is not None and len(value) > most:
        found.append(Cause(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany"))
    return found


def _junctor_causes(value: Any, schema: Schema, path: str) -> list[Cause]:
    def fitting(word: str) -> int:
        return sum(1 for one in schema.get(word) or () if not causes(value, one, path or "value"))

    wrong = []
    if schema.get("allOf") and fitting("allOf") < len(schema["allOf"]):
        wrong.append("must validate all the schemas (allOf)")
    if schema.get("anyOf") and not fitting("anyOf"):
        wrong.append("must validate at least one schema (anyOf)")
    if schema.get("oneOf") and fitting("oneOf") != 1:
        wrong.append("must validate one and only one schema (oneOf)")
    if "not" in schema and not causes(value, schema["not"], path or "value"):
        wrong.append("must not validate the schema (not)")
    return [
        invalid_value(path, value if isinstance(value, str) else json.dumps(value), f"{path} in body {words}")
        for words in wrong
    ]
