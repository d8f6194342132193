"""The part of the GJSON path language that Katib's success and failure conditions use.

Supported: keys joined by ``.`` or ``|``, array indexes, ``#(key=="value")`` (first match),
``#(key=="value")#`` (all matches) with ``== != < <= > >=``, ``#`` (each element), ``@this`` and ``[@this]``
(the value as a list of one). After ``#`` and ``#(...)#`` a ``.`` goes on inside each element and a ``|``
with the list as a whole. Not supported: ``%`` patterns, other modifiers, and multipaths of more than
``@this``.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import re2


class PathError(ValueError):
    """The path is not in the supported subset."""


class _Missing:
    """What a path that leads nowhere gives; JSON null is a value."""


MISSING = _Missing()

_STEP = re.compile(
    r"""(?P<query>\#\((?P<inner>(?:[^()"]|"(?:[^"\\]|\\.)*")*)\)(?P<all>\#)?)
      | (?P<each>\#)
      | (?P<list>\[@this\])
      | (?P<this>@this)
      | (?P<key>(?:[^.|\\#@\[\]]|\\.)+)""",
    re.VERBOSE,
)
_COMPARISON = re2.compile(r"\s*(?P<path>.*?)\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<literal>.+?)\s*$")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class _Step:
    apply: Callable[[Any], Any]
    yields_each: bool
    piped: bool
    """Joined to the step before it by ``|``."""


def get(value: Any, path: str) -> Any:
    """What the path selects, or ``MISSING``."""
    return _walk(value, _steps(path))


def _walk(value: Any, steps: list[_Step]) -> Any:
    for position, step in enumerate(steps):
        if value is MISSING:
            return MISSING
        value = step.apply(value)
        rest = steps[position + 1 :]
        if step.yields_each and isinstance(value, list) and rest and not rest[0].piped:
            inside = _until_pipe(rest)
            found = [_walk(item, inside) for item in value]
            return _walk([item for item in found if item is not MISSING], rest[len(inside) :])
    return value


def _until_pipe(steps: list[_Step]) -> list[_Step]:
    for position, step in enumerate(steps):
        if step.piped:
            return steps[:position]
    return steps


def _steps(path: str) -> list[_Step]:
    steps: list[_Step] = []
    position, piped = 0, False
    while True:
        match = _STEP.match(path, position)
        if match is None:
            raise PathError(f"cannot read {path!r} from {path[position:]!r} on")
        steps.append(_step(match, piped))
        position = match.end()
        if position == len(path):
            return steps
        if path[position] not in ".|":
            raise PathError(f"expected '.' or '|' in {path!r} before {path[position:]!r}")
        piped = path[position] == "|"
        position += 1


def _step(match: re.Match[str], piped: bool) -> _Step:
    if match["query"]:
        return _Step(_query(match["inner"], all_matches=bool(match["all"])), bool(match["all"]), piped)
    if match["each"]:
        return _Step(lambda value: value if isinstance(value, list) else MISSING, True, piped)
    if match["list"]:
        return _Step(lambda value: [value], False, piped)
    if match["this"]:
        return _Step(lambda value: value, False, piped)
    key = re.sub(r"\\(.)", r"\1", match["key"])
    return _Step(lambda value: _child(value, key), False, piped)


def _child(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key, MISSING)
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    return MISSING


def _query(inner: str, *, all_matches: bool) -> Callable[[Any], Any]:
    matches = _predicate(inner)

    def apply(value: Any) -> Any:
        if not isinstance(value, list):
            return MISSING
        found = [item for item in value if matches(item)]
        if all_matches:
            return found
        return found[0] if found else MISSING

    return apply


def _predicate(inner: str) -> Callable[[Any], bool]:
    comparison = _COMPARISON.match(inner)
    if comparison is None:
        steps = _steps(inner.strip())
        return lambda item: _walk(item, steps) is not MISSING
    steps = _steps(comparison["path"]) if comparison["path"] else []
    compare, expected = _OPERATORS[comparison["operator"]], _literal(comparison["literal"])

    def matches(item: Any) -> bool:
        actual = _walk(item, steps)
        comparable = type(actual) is type(expected) or (_is_number(actual) and _is_number(expected))
        return comparable and compare(actual, expected)

    return matches


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PathError(f"{text!r} is not a JSON value") from error
