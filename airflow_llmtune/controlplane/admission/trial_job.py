"""The validator's check of a ``batch/v1`` Job template: it must survive the way through Go's Job type unchanged. Pure.

The text after ``converted template:`` has the fields of the typed Job, not always in Go's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_llmtune.controlplane.admission.job_struct import JOB
from airflow_llmtune.controlplane.admission.structs import FieldType, ListOf, MapOf, Named, Struct
from airflow_llmtune.controlplane.go_text import go_json, go_value

# Fields that Go writes although they are zero: pointers, and names without omitempty.
_KEPT_WHEN_ZERO = {
    "name",
    "mountPath",
    "automountServiceAccountToken",
    "shareProcessNamespace",
    "enableServiceLinks",
    "setHostnameAsFQDN",
    "hostUsers",
    "suspend",
    "manualSelector",
    "runtimeClassName",
    "preemptionPolicy",
    "hostnameOverride",
    "completionMode",
    "podReplacementPolicy",
    "managedBy",
    "containers",
}
_GO_KINDS = {bool: "bool", int: "int64", float: "float64", str: "string", list: "slice", dict: "map"}


class _ConvertError(Exception):
    """A value cannot become what its field is."""


def job_mistake(job: dict[str, Any]) -> str | None:
    """What is wrong with the template's Job, in Katib's words."""
    try:
        converted = _convert(JOB, job)
    except _ConvertError as error:
        return f"unable to convert spec.TrialTemplate: {go_value(job)} to Job: {error}"
    for path, value in _lost(JOB, job, ""):
        if "/resources/limits/" not in path and "/resources/requests/" not in path:
            shown = "" if value is None else go_value(value)
            return f"unable to convert: {path} - {shown} to Job, converted template: {go_json(converted)}"
    return None


def _convert(type_: FieldType, value: Any) -> Any:
    """The value as Go's converter of unstructured objects takes it over; unknown fields are passed by."""
    if value is None:
        return None
    match type_:
        case Struct(fields=fields):
            if not isinstance(value, dict):
                raise _ConvertError(f"cannot restore struct from: {_go_kind(value)}")
            return {name: _convert(field, value[name]) for name, field in fields.items() if name in value}
        case MapOf(value=inner):
            if not isinstance(value, dict):
                raise _ConvertError(f"cannot restore map from {_go_kind(value)}")
            return {name: _convert(inner, one) for name, one in value.items()}
        case ListOf(item=item):
            if not isinstance(value, list):
                raise _ConvertError(f"cannot restore slice from {_go_kind(value)}")
            return [_convert(item, one) for one in value]
        case Named(base=base):
            return _convert_scalar(base, value)
        case _:
            return _convert_scalar(type_, value)


def _convert_scalar(type_: str, value: Any) -> Any:
    kind = _go_kind(value)
    is_number = kind in {"int64", "float64"}
    whole = is_number and float(value).is_integer()
    if type_ in {"any", kind} or (type_ in {"int32", "int64"} and whole) or (type_ == "float64" and is_number):
        return int(value) if type_ in {"int32", "int64"} else value
    if is_number and (type_ in {"int32", "int64"} or (type_ == "string" and kind == "int64")):
        raise _ConvertError(f"cannot convert {kind} to {type_}")
    raise _ConvertError(f"unrecognized type: {type_}")


def _go_kind(value: Any) -> str:
    return _GO_KINDS[type(value)]


def _lost(type_: FieldType, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Path and value of all that the typed Job does not hold any more."""
    if isinstance(type_, ListOf):
        for index, one in enumerate(value):
            yield from _lost(type_.item, one, f"{path}/{index}")
    elif isinstance(type_, Struct):
        for name, one in sorted(value.items()):
            inner, field = f"{path}/{name}", type_.fields.get(name)
            if field is None or (_is_zero(field, one) and name not in _KEPT_WHEN_ZERO):
                yield inner, one
            elif one is not None:
                yield from _lost(field, one, inner)


def _is_zero(type_: FieldType, value: Any) -> bool:
    if isinstance(type_, Struct) or type_ == "any":
        return False
    return value is None or value is False or value in ("", [], {})
