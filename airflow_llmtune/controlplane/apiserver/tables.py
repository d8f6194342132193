"""Server-side printing: the tables of ``kubectl get``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.columns import Cell, Column, Object


def table(
    columns: Sequence[Column], objects: Iterable[Object], metadata: dict[str, Any], include: str, now: datetime
) -> dict[str, Any]:
    """A ``meta.k8s.io/v1`` Table; ``include`` says what of the object each row carries along."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in columns],
        "rows": [
            {"cells": [_cell(column, obj, now) for column in columns], "object": _row_object(obj, include)}
            for obj in objects
        ],
    }


def _cell(column: Column, obj: Object, now: datetime) -> Cell:
    """A field of an unexpected type does not hide all other objects."""
    try:
        return column.read(obj, now)
    except (AttributeError, LookupError, TypeError, ValueError):
        return "<invalid>"


def _row_object(obj: Object, include: str) -> Object | None:
    if include == "Object":
        return obj
    if include == "None":
        return None
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
