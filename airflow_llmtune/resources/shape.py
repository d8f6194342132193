"""The types of a manifest's fields: what the API server would refuse while it reads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_llmtune.resources.meta import finite
from airflow_llmtune.resources.problems import Problems

__all__ = ["check_plain", "has_shape"]

# No kind is deeper, and what YAML makes of `&a [*a]` has no end.
_DEEPEST = 60
# The API server takes 3 MiB.
_MOST_VALUES = 100_000
_HALF_CHARACTER = r"[\ud800-\udfff]"


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


def check_plain(where: str, value: Any, check: Callable[[], None], problems: Problems) -> bool:
    """
    Run a kind's own ``check`` and note what of the value no JSON can carry, unless the check has named it already.

    :return: False, without the check, for a value in which nothing can be looked for: it is too deep or too large.
    """
    odd = Problems()
    is_bounded = _check_json(where, value, odd)
    if is_bounded:
        check()
    named = {error.argument for error in problems.errors}
    problems.errors += [error for error in odd.errors if error.argument not in named]
    return is_bounded


def _check_json(where: str, value: Any, problems: Problems) -> bool:
    """Whether it has an end; what is wrong in it is noted in order."""
    left, count = [(where, value, 0)], 0
    while left:
        here, value, depth = left.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            rule = f"is nested more than {_DEEPEST} levels deep, or has more than {_MOST_VALUES} values"
            problems.add(here, "…", rule, "look for an alias of YAML that holds itself")
            return False
        if isinstance(value, Mapping):
            for key in [key for key in value if not isinstance(key, str) or _unfit(key) is not None]:
                problems.add(_below(here, key), value[key], "has a name that is no text", "put the name in quotes")
            left += [(_below(here, key), value[key], depth + 1) for key in reversed(list(value))]
        elif isinstance(value, list | tuple):
            left += [(f"{here}[{index}]", value[index], depth + 1) for index in reversed(range(len(value)))]
        elif (unfit := _unfit(value)) is not None:
            problems.add(here, value, unfit, "put it in quotes, if it is meant as text")
    return True


def _below(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _unfit(value: Any) -> str | None:
    if isinstance(value, str):
        return "has half a character, which no request can carry" if re.search(_HALF_CHARACTER, value) else None
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    return None if value is None or isinstance(value, bool | int | float) else "is no text, number or boolean"
