"""Sets of fields of an object: paths in the words of ``FieldsV1``, their values, merging and removing by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.shapes import Shape

Path = tuple[str, ...]
"""Elements ``f:<field>``, ``k:<keys of a list item>`` and ``v:<member of a set>``."""

ITEM = object()
"""The value of a list item itself, beside the fields in it."""


def fields_of(value: Any, shape: Shape, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All that can have an owner: single values, whole lists and maps that are not merged, and list items."""
    if isinstance(value, dict) and not shape.is_atomic_map:
        if not value and path:
            yield path, value
        for name, one in value.items():
            if one is not None:
                yield from fields_of(one, shape.field(name), (*path, f"f:{name}"))
        return
    elements = shape.elements(value) if isinstance(value, list) and value else None
    if elements is None:
        yield path, value
        return
    for element, item in zip(elements, value, strict=True):
        where = (*path, element)
        yield where, ITEM
        if isinstance(item, dict):
            yield from ((below, one) for below, one in fields_of(item, shape.item(), where) if below != where)


def merge(live: Any, applied: Any, shape: Shape) -> Any:
    """The live value with all that is applied; a null counts as left out."""
    if isinstance(applied, dict) and isinstance(live, dict) and not shape.is_atomic_map:
        merged = dict(live)
        for name, one in applied.items():
            if one is not None:
                merged[name] = merge(live.get(name), one, shape.field(name))
        return merged
    if isinstance(applied, dict):
        return {name: merge(None, one, shape.field(name)) for name, one in applied.items() if one is not None}
    if isinstance(applied, list) and isinstance(live, list):
        return _merge_items(live, applied, shape)
    return applied


def _merge_items(live: list[Any], applied: list[Any], shape: Shape) -> list[Any]:
    theirs, ours = shape.elements(live), shape.elements(applied)
    if theirs is None or ours is None:
        return applied
    merged = dict(zip(theirs, live, strict=True))
    for element, item in zip(ours, applied, strict=True):
        merged[element] = merge(merged.get(element), item, shape.item())
    return list(merged.values())


def remove(value: Any, path: Path, shape: Shape) -> None:
    """Take a field out of an object, in place; nothing happens when it is not there."""
    element, rest = path[0], path[1:]
    if element.startswith("f:"):
        name = element[2:]
        if not isinstance(value, dict) or name not in value:
            return
        if rest:
            remove(value[name], rest, shape.field(name))
        else:
            del value[name]
    elif isinstance(value, list):
        elements = shape.elements(value) or []
        if element in elements:
            index = elements.index(element)
            if rest:
                remove(value[index], rest, shape.item())
            else:
                del value[index]


def is_key(path: Path) -> bool:
    """Whether this is the field that tells a list item from the others."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def encoded(paths: Iterable[Path]) -> dict[str, Any]:
    """``fieldsV1``; a place that is owned itself and has owned fields below carries a dot."""
    tree: dict[str, Any] = {}
    members = set(paths)
    for path in sorted(members):
        node = tree
        for depth, element in enumerate(path, start=1):
            node = node.setdefault(element, {})
            if depth < len(path) and path[:depth] in members:
                node["."] = {}
    return tree


def decoded(tree: Any, path: Path = ()) -> Iterator[Path]:
    if not isinstance(tree, Mapping):
        raise bad_request("metadata.managedFields: fieldsV1 must be an object")
    if path and (not tree or "." in tree):
        yield path
    for element, below in tree.items():
        if element != ".":
            yield from decoded(below, (*path, element))


def shown(path: Path) -> str:
    """As messages write it: ``.spec.containers[name="main"].image``."""
    return "".join(map(_shown_element, path))


def _shown_element(element: str) -> str:
    if element.startswith("f:"):
        return f".{element[2:]}"
    if element.startswith("v:"):
        return f"[={element[2:]}]"
    keys = json.loads(element[2:])
    return "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items()) + "]"
