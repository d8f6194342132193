"""The patch formats of the Kubernetes API, as pure functions from an object to a new one.

* merge patch: RFC 7386
* JSON patch: RFC 6902
* strategic merge patch, for built-in kinds: maps are merged, the well-known lists are merged by their key
  (containers by name, conditions by type), ``$patch``, ``$retainKeys``, ``$setElementOrder/...`` and
  ``$deleteFromPrimitiveList/...`` are honoured, every other list is replaced

Server-side apply, which is sent as a patch too, is no function of the object alone: see ``server_side_apply``.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jsonpatch

from airflow_llmtune.controlplane.apiserver.errors import ApiError, bad_request, failure

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

# List fields that are merged, by name of the field. Two fields are keyed differently in different kinds; the
# first of the keys that an element has decides.
_MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "hostAliases": ("ip",),
    "podIPs": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
}
_MERGED_PRIMITIVES = frozenset({"finalizers"})

_MOST_OPERATIONS = 10_000
_MOST_COPIED_BYTES = 3 * 1024 * 1024
"""A real server has the same two limits."""

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"


def accepted_types(kind: Kind) -> tuple[str, ...]:
    return (JSON, MERGE, APPLY) if kind.is_custom else (JSON, MERGE, STRATEGIC, APPLY)


def apply_patch(obj: dict[str, Any], content_type: str, patch: Any) -> dict[str, Any]:
    """The patched object; the caller has checked that the kind accepts the content type."""
    if content_type == JSON:
        return json_patch(obj, patch)
    if not isinstance(patch, dict):
        raise bad_request(f"error decoding patch: expected a JSON object, got {type(patch).__name__}")
    if content_type == STRATEGIC:
        try:
            return strategic_merge_patch(obj, patch)
        except TypeError as error:
            raise bad_request(f"error decoding patch: a directive is not of the expected type: {error}") from None
    return merge_patch(obj, patch)


def merge_patch(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(target) if isinstance(target, dict) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value) if isinstance(value, dict) else value
    return merged


def json_patch(obj: dict[str, Any], operations: Any) -> dict[str, Any]:
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > _MOST_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(operations)}"
        raise ApiError(failure(413, "RequestEntityTooLarge", message))
    try:
        patched = _operated(copy.deepcopy(obj), operations)
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(failure(422, "Invalid", message, {"causes": [{"message": str(error)}]})) from None
    if not isinstance(patched, dict):
        raise bad_request("error decoding patch: the result is not an object")
    return dict(patched)


def _operated(obj: Any, operations: list[Any]) -> Any:
    """One by one, since each copy of a whole object into itself makes it twice as large."""
    copied = 0
    for operation in operations:
        if isinstance(operation, dict) and operation.get("op") == "copy":
            copied += len(json.dumps(jsonpatch.JsonPointer(operation.get("from", "")).resolve(obj)))
            if copied > _MOST_COPIED_BYTES:
                raise jsonpatch.JsonPatchException(f"unable to copy more than {_MOST_COPIED_BYTES} bytes")
        obj = jsonpatch.JsonPatch([operation]).apply(obj, in_place=True)
    return obj


def strategic_merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {name: _without_directives(one) for name, one in patch.items() if not name.startswith("$")}
    if directive == "delete":
        return {}
    merged = copy.deepcopy(target)
    for field, value in patch.items():
        if not field.startswith("$"):
            _merge_field(merged, field, value)
        elif field.startswith(_DELETE_PRIMITIVES):
            name = field.removeprefix(_DELETE_PRIMITIVES)
            merged[name] = [item for item in merged.get(name) or [] if item not in value]
    for field, value in patch.items():
        if field.startswith(_ORDER):
            name = field.removeprefix(_ORDER)
            if merged.get(name):
                merged[name] = _ordered(name, merged[name], value)
    if _RETAIN in patch:
        merged = {field: value for field, value in merged.items() if field in patch[_RETAIN]}
    return merged


def _merge_field(merged: dict[str, Any], field: str, value: Any) -> None:
    current = merged.get(field)
    if value is None:
        merged.pop(field, None)
    elif isinstance(value, dict):
        merged[field] = strategic_merge_patch(current if isinstance(current, dict) else {}, value)
    elif isinstance(value, list):
        merged[field] = _merge_list(field, current if isinstance(current, list) else [], value)
    else:
        merged[field] = value


def _merge_list(field: str, current: list[Any], patch: list[Any]) -> list[Any]:
    if field in _MERGED_PRIMITIVES:
        return [*current, *(item for item in patch if item not in current)]
    key = _merge_key(field, [*current, *patch])
    if key is None or any(_is_replace(item) for item in patch):
        return [_without_directives(item) for item in patch if not _is_replace(item) or len(item) > 1]
    merged = list(current)
    for item in patch:
        _merge_item(merged, key, item)
    return merged


def _merge_item(merged: list[Any], key: str, item: dict[str, Any]) -> None:
    if key not in item:
        raise bad_request(f"map: {item} does not contain declared merge key: {key}")
    index = next((i for i, one in enumerate(merged) if one.get(key) == item[key]), None)
    if item.get(_DIRECTIVE) == "delete":
        if index is not None:
            del merged[index]
    elif index is None:
        merged.append(_without_directives(strategic_merge_patch({}, item)))
    else:
        merged[index] = strategic_merge_patch(merged[index], item)


def _merge_key(field: str, items: list[Any]) -> str | None:
    keys = _MERGE_KEYS.get(field, ())
    if not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in keys if any(key in item for item in items)), None)


def _is_replace(item: Any) -> bool:
    return isinstance(item, dict) and item.get(_DIRECTIVE) == "replace"


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_directives(one) for name, one in value.items() if not name.startswith("$")}
    if isinstance(value, list):
        return [_without_directives(one) for one in value]
    return value


def _ordered(field: str, items: list[Any], order: list[Any]) -> list[Any]:
    """Items the patch names come in its order; the others stay behind the one they followed."""
    key = _merge_key(field, items)
    wanted = [one[key] if key else one for one in order if key is None or key in one]
    places = {value: index for index, value in enumerate(wanted)}

    def rank(item: Any) -> int | None:
        return places.get(item.get(key) if key else item)

    ranked: list[tuple[int, int, Any]] = []
    last = -1
    for index, item in enumerate(items):
        place = rank(item)
        last = last if place is None else place
        ranked.append((last, 0 if place is not None else 1 + index, item))
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])]
