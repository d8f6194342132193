"""Typed reading of JSON as Go does it: unknown fields vanish, a wrong type is an error. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class UnmarshalError(Exception):
    """A value has another type than its field; the text is Go's."""


@dataclass(frozen=True)
class Struct:
    """A Go struct: its name and the types of its JSON fields."""

    name: str
    fields: Mapping[str, FieldType]


@dataclass(frozen=True)
class ListOf:
    item: FieldType


@dataclass(frozen=True)
class MapOf:
    value: FieldType


FieldType = str | Struct | ListOf | MapOf
"""A struct, a collection, or one of ``string int32 float64 bool any``."""

ANY = "any"

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
    if isinstance(type_, str):
        if not _scalar_fits(type_, value):
            raise _mismatch(value, owner, path, type_)
        return value
    if isinstance(type_, ListOf):
        if not isinstance(value, list):
            raise _mismatch(value, owner, path, _go_type(type_))
        return [unmarshal(type_.item, one, owner=owner, path=path, strict=strict) for one in value]
    if not isinstance(value, dict):
        raise _mismatch(value, owner, path, _go_type(type_))
    read: dict[str, Any] = {}
    for name, one in value.items():
        field = type_.value if isinstance(type_, MapOf) else type_.fields.get(name)
        inner = path if isinstance(type_, MapOf) else f"{path}.{name}".lstrip(".")
        if field is None:
            if strict:
                raise UnmarshalError(f'unknown field "{inner}"')
        elif one is not None:
            inner_owner = type_.name if isinstance(type_, Struct) else owner
            read[name] = unmarshal(field, one, owner=inner_owner, path=inner, strict=strict)
    return read


def _go_type(type_: FieldType) -> str:
    match type_:
        case str():
            return type_
        case Struct(name=name):
            return f"v1beta1.{name}"
        case ListOf(item=item):
            return f"[]{_go_type(item)}"
        case MapOf(value=value):
            return f"map[string]{_go_type(value)}"


def _mismatch(value: Any, owner: str, path: str, expected: str) -> UnmarshalError:
    got = _GO_NAMES.get(type(value), "null")
    if got == "number" and expected.startswith("int"):
        got = f"number {value}"
    return UnmarshalError(f"json: cannot unmarshal {got} into Go struct field {owner}.{path} of type {expected}")
