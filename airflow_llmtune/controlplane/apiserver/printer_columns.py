"""``additionalPrinterColumns`` of a CustomResourceDefinition: the small part of JSONPath that they use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.apiserver.columns import AGE, NAME, Cell, Column, Object, Reader, since

_STEP = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\\])+)
    |\[['"](?P<quoted>[^'"]*)['"]\]
    |\[\?\(@\.(?P<key>[\w.]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]
    |\[(?P<index>-?\d+)(?P<rest>:)?\]
    |\[(?P<all>\*)\]""",
    re.VERBOSE,
)


def printer_columns(declared: Sequence[Mapping[str, Any]] | None) -> tuple[Column, ...]:
    """What a version of a definition declares, or name and age."""
    if not declared:
        return (NAME, AGE)
    return (NAME, *(_column(one) for one in declared))


def _column(one: Mapping[str, Any]) -> Column:
    type_ = str(one.get("type", "string"))
    return Column(
        str(one.get("name", "")),
        _reader(str(one.get("jsonPath", "")), type_),
        type_,
        int(one.get("priority") or 0),
        str(one.get("description", "")),
    )


def _reader(json_path: str, type_: str) -> Reader:
    steps = list(_STEP.finditer(json_path))

    def read(obj: Object, now: datetime) -> Cell:
        found: Iterable[Any] = [obj]
        for step in steps:
            found = [one for value in found for one in _below(value, step)]
        return _cell(list(found), type_, now)

    return read


def _below(value: Any, step: re.Match[str]) -> list[Any]:
    name = step["name"] or step["quoted"]
    if name is not None:
        name = name.replace("\\", "")
        return [value[name]] if isinstance(value, Mapping) and name in value else []
    if not isinstance(value, list):
        return []
    if step["index"] is not None:
        index = int(step["index"])
        return value[index:][:1] if index < 0 or not step["rest"] else value[index:]
    if step["key"] is not None:
        return [one for one in value if isinstance(one, Mapping) and str(one.get(step["key"])) == step["value"]]
    return list(value)


def _cell(found: list[Any], type_: str, now: datetime) -> Cell:
    if not found:
        return None
    value = found[0]
    if type_ == "date":
        return since(str(value), now)
    if type_ == "integer":
        return int(value)
    return value if isinstance(value, str | int | float | bool) else str(value)
