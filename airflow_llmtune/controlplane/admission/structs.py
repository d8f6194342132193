"""Typed reading of JSON as Go does it: unknown fields vanish, a wrong type is an error. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.go_text import go_value


class UnmarshalError(Exception):
    """A value has another type than its field; the text is Go's."""


@dataclass(frozen=True)
class Struct:
    """A Go struct: its name and the types of its JSON fields, in Go's order."""

    name: str
    fields: Mapping[str, FieldType]


@dataclass(frozen=True)
class Named:
    """A Go type with a name of its own and the values of another; errors call it by its name."""

    name: str
    base: str


@dataclass(frozen=True)
class ListOf:
    item: FieldType


@dataclass(frozen=True)
class MapOf:
    value: FieldType


FieldType = str | Struct | Named | ListOf | MapOf
"""A struct, a collection, or one of ``string int32 int64 float64 bool any``."""

ANY = "any"


def fields_of(types: Mapping[FieldType, str]) -> dict[str, FieldType]:
    """Fields by type, the names of each type in one text."""
    return {name: type_ for type_, names in types.items() for name in names.split()}


_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def _scalar_fits(type_: str, value: Any) -> bool:
    match type_:
        case "any":
            return True
        case "string":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int32" | "int64":
            bound = 2 ** (int(type_[3:]) - 1)
            return isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound
        case _:
            return isinstance(value, int | float) and not isinstance(value, bool)


def unmarshal(type_: FieldType, value: Any, *, owner: str = "", path: str = "", strict: bool = False) -> Any:
    """The value with unknown fields and nulls left out; ``strict`` makes an unknown field an error too."""
    if isinstance(type_, str | Named):
        if not _scalar_fits(type_ if isinstance(type_, str) else type_.base, value):
            raise _mismatch(value, owner, path, type_)
        return value
    if isinstance(type_, ListOf):
        if not isinstance(value, list):
            raise _mismatch(value, owner, path, type_)
        return [unmarshal(type_.item, one, owner=owner, path=path, strict=strict) for one in value]
    if not isinstance(value, dict):
        raise _mismatch(value, owner, path, type_)
    read: dict[str, Any] = {}
    # By name, as an API server sends an object to a webhook: the first mistake is the one that is told.
    for name, one in sorted(value.items()):
        field = type_.value if isinstance(type_, MapOf) else type_.fields.get(name)
        inner = path if isinstance(type_, MapOf) else f"{path}.{name}".lstrip(".")
        if field is None:
            if strict:
                raise UnmarshalError(f'unknown field "{inner}"')
        elif one is not None:
            inner_owner = type_.name if isinstance(type_, Struct) else owner
            read[name] = unmarshal(field, one, owner=inner_owner, path=inner, strict=strict)
    return read if isinstance(type_, MapOf) else {name: read[name] for name in type_.fields if name in read}


def without_zero_values(type_: FieldType, value: Any) -> Any:
    """A read value as Go writes it again with ``omitempty``: no empty text, list or map, no false.

    Numbers and structs stay: in Katib's types they are pointers, or written always.
    """
    if isinstance(type_, ListOf):
        return [without_zero_values(type_.item, one) for one in value]
    if not isinstance(type_, Struct):
        return value
    kept = {name: without_zero_values(type_.fields[name], one) for name, one in value.items()}
    return {name: one for name, one in kept.items() if not _is_zero(type_.fields[name], one)}


def _is_zero(type_: FieldType, value: Any) -> bool:
    return not isinstance(type_, Struct) and type_ != ANY and (value is False or value == "" or value in ([], {}))


def _go_type(type_: FieldType) -> str:
    match type_:
        case str():
            return type_
        case Struct(name=name) | Named(name=name):
            return name if "." in name else f"v1beta1.{name}"
        case ListOf(item=item):
            return f"[]{_go_type(item)}"
        case MapOf(value=value):
            return f"map[string]{_go_type(value)}"


def _mismatch(value: Any, owner: str, path: str, type_: FieldType) -> UnmarshalError:
    got, expected = _GO_NAMES.get(type(value), "null"), _go_type(type_)
    if got == "number" and expected.startswith("int"):
        got = f"number {value}"
    return UnmarshalError(f"json: cannot unmarshal {got} into Go struct field {owner}.{path} of type {expected}")


def go_struct(type_: FieldType, value: Any) -> str:
    """``%v`` of a read value: a struct shows the values of all its fields in order, zero values too."""
    if isinstance(type_, Struct):
        read = value or {}
        return f"{{{' '.join(go_struct(field, read.get(name)) for name, field in type_.fields.items())}}}"
    if isinstance(type_, ListOf):
        return f"[{' '.join(go_struct(type_.item, one) for one in value or ())}]"
    return "" if value is None else go_value(value)
