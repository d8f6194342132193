"""The JSONPath of additionalPrinterColumns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.printer_columns import printer_columns

NOW = datetime(2026, 11, 22, 9, 10, tzinfo=UTC)
OBJECT = {
    "metadata": {"name": "w", "creationTimestamp": "2026-11-22T09:00:00Z", "labels": {"a.b/c": "label"}},
    "spec": {"size": "s", "count": 2, "on": True, "list": ["first", "last"], "map": {"x": 1}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "type_", "cell"),
    [
        (".spec.size", "string", "s"),
        (".spec.count", "integer", 2),
        (".spec.on", "boolean", True),
        (".spec.none.at.all", "string", None),
        (".spec.list[0]", "string", "first"),
        (".spec.list[-1:]", "string", "last"),
        (".spec.list[*]", "string", "first"),
        (".spec.list[7]", "string", None),
        (".spec.size[0]", "string", None),
        (".spec.map", "string", "{'x': 1}"),
        (r".metadata.labels.a\.b/c", "string", "label"),
        (".metadata.labels['a.b/c']", "string", "label"),
        ('.status.conditions[?(@.type=="Done")].status', "string", "False"),
        (".status.conditions[-1:].type", "string", "Done"),
        (".metadata.creationTimestamp", "date", "10m"),
    ],
)
def test_a_cell_is_what_the_path_finds_first(path: str, type_: str, cell: Any) -> None:
    columns = printer_columns([{"name": "C", "type": type_, "jsonPath": path}])
    assert columns[1].read(OBJECT, NOW) == cell


def test_without_columns_of_its_own_a_kind_shows_name_and_age() -> None:
    assert [column.name for column in printer_columns(None)] == ["Name", "Age"]
    assert [column.read(OBJECT, NOW) for column in printer_columns([])] == ["w", "10m"]


def test_wide_columns_say_so() -> None:
    (_, column) = printer_columns([{"name": "C", "type": "string", "jsonPath": ".a", "priority": 1}])
    assert column.definition()["priority"] == 1
