"""The types of a manifest's fields: what the API server would refuse while it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.meta import finite

if TYPE_CHECKING:
    from airflow_llmtune.resources.meta import Problems

__all__ = ["has_shape"]


def has_shape(where: str, value: Any, shape: Any, problems: Problems) -> bool:
    """Whether a value has the types of ``shape``; an absent value has any shape."""
    before = len(problems.errors)
    _check_shape(where, value, shape, problems)
    return len(problems.errors) == before


def _check_shape(where: str, value: Any, shape: Any, problems: Problems) -> None:
    if value is None:
        return
    if isinstance(shape, dict) and isinstance(value, Mapping):
        for key, inner in shape.items():
            _check_shape(f"{where}.{key}", value.get(key), inner, problems)
    elif isinstance(shape, list) and isinstance(value, list):
        for index, entry in enumerate(value):
            # An entry that is null is no entry that could be left out.
            _check_shape(f"{where}[{index}]", "null" if entry is None else entry, shape[0], problems)
    elif shape is str and not isinstance(value, str):
        problems.add(where, value, "is not text, and nothing else is taken here", "put it in quotes")
    elif shape is int and (not isinstance(value, int) or isinstance(value, bool)):
        problems.add(where, value, "is not an integer", "write a number without quotes")
    elif shape is float and (isinstance(value, str) or finite(value) is None):
        fix = "write 1.0e-3 or 0.001, not 1e-3, which YAML takes for text"
        problems.add(where, value, "is not a finite number", fix)
    elif (shape is dict or isinstance(shape, dict)) and not isinstance(value, Mapping):
        problems.add(where, value, "is not a mapping", "give `name: value` pairs")
    elif isinstance(shape, list) and not isinstance(value, list):
        problems.add(where, value, "is not a list", "give a list")
