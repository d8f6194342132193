"""Kubernetes' protobuf bodies, as far as kubectl sends them although it is not asked to.

``kubectl create job|deployment|role|...`` and ``kubectl auth`` know no other encoding. Only what these commands set is
read (``protobuf_fields``); every other kind is refused with 415, and answers are always JSON, which they accept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request, unsupported_media_type
from airflow_llmtune.controlplane.apiserver.protobuf_fields import KINDS, TYPE_META, Field

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def decode(body: bytes) -> dict[str, Any]:
    """The object in a body of Kubernetes' protobuf envelope."""
    if not body.startswith(_MAGIC):
        raise bad_request("the provided data does not appear to be a protobuf message")
    try:
        envelope = dict(_pairs(body[len(_MAGIC) :]))
        head = _message(bytes(envelope[1]), TYPE_META)
        fields = KINDS.get((head.get("apiVersion", ""), head.get("kind", "")))
        if fields is None:
            raise unsupported_media_type(("application/json", "application/yaml"))
        return head | _message(bytes(envelope[2]), fields)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise bad_request(f"the protobuf message cannot be read: {error!r}") from None


def _message(raw: bytes, fields: Mapping[int, Field]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for number, value in _pairs(raw):
        field = fields.get(number)
        if field is not None:
            _set(read, field, value)
    return read


def _set(read: dict[str, Any], field: Field, value: int | bytes) -> None:
    if isinstance(value, int):
        read[field.name] = value if field.shape == "int" else bool(value)
    elif field.shape == "int or string":
        read[field.name] = _int_or_string(value)
    elif field.shape == "message":
        read[field.name] = _message(value, field.fields or {})
    elif field.shape == "messages":
        read.setdefault(field.name, []).append(_message(value, field.fields or {}))
    elif field.shape == "strings":
        read.setdefault(field.name, []).append(value.decode())
    elif field.shape in {"string map", "bytes map"}:
        entry = dict(_pairs(value))
        text = bytes(entry.get(2, b""))
        shown = base64.b64encode(text).decode() if field.shape == "bytes map" else text.decode()
        read.setdefault(field.name, {})[bytes(entry.get(1, b"")).decode()] = shown
    elif value:
        # Go writes absent strings as empty ones.
        read[field.name] = value.decode()


def _int_or_string(value: bytes) -> int | str:
    parts = dict(_pairs(value))
    return bytes(parts.get(3, b"")).decode() if parts.get(1) else int(parts.get(2, 0))


def _pairs(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and value of each field of a message."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        wire = tag & 7
        if wire == _VARINT:
            number, position = _varint(raw, position)
            yield tag >> 3, number
            continue
        if wire == _LENGTH:
            size, position = _varint(raw, position)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise IndexError(f"wire type {wire}")
        if position + size > len(raw):
            raise IndexError("truncated")
        yield tag >> 3, raw[position : position + size]
        position += size


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
