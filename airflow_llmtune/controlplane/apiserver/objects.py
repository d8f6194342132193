"""What a write does with an object as a whole. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

Object = dict[str, Any]


def copied(obj: Object) -> Object:
    try:
        # Encoded, as the store will do it: half of a surrogate pair is no text.
        copied = json.loads(json.dumps(obj, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
    if not isinstance(copied, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object)")
    return copied


def is_same(one: Any, other: Any) -> bool:
    """As JSON: to Python 1, 1.0 and true are equal."""
    return one is other or (one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def take(target: Object, source: Object, field: str) -> None:
    if source.get(field) is not None:
        target[field] = source[field]
    else:
        target.pop(field, None)


def desired(kind: Kind, obj: Object) -> Object:
    """What a change of which makes a new generation."""
    return {
        field: value
        for field, value in obj.items()
        if field != "metadata" and not (kind.has_status and field == "status")
    }


def is_name_generated(obj: Object) -> bool:
    metadata = obj.get("metadata", {})
    return bool(metadata.get("generateName")) and not metadata.get("name")
