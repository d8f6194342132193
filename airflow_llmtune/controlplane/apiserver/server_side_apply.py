"""Field ownership: who may change what without ``force``, and what goes when its only owner leaves it out.

Ownership is recorded from the first apply on. What was written before belongs, from then on, to one manager
(``before-first-apply``, or ``kubectl-client-side-apply`` for objects of ``kubectl apply``), so that objects nobody
applies carry and cost nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, bad_request, failure
from airflow_llmtune.controlplane.apiserver.field_sets import (
    Path,
    decoded,
    encoded,
    fields_of,
    is_key,
    merge,
    remove,
    shown,
)
from airflow_llmtune.controlplane.apiserver.metadata import SERVER_OWNED
from airflow_llmtune.controlplane.apiserver.objects import is_same
from airflow_llmtune.controlplane.apiserver.shapes import Shape

Object = dict[str, Any]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CLIENT_SIDE_APPLY = "kubectl-client-side-apply"
_SERVERS_METADATA = frozenset({*SERVER_OWNED, "resourceVersion", "managedFields", "selfLink"})
_IGNORED = frozenset({("f:apiVersion",), ("f:kind",), *(("f:metadata", f"f:{name}") for name in _SERVERS_METADATA)})


@dataclass(frozen=True)
class Owner:
    """One entry of ``metadata.managedFields``."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: frozenset[Path]

    def is_same(self, other: Owner) -> bool:
        return (self.manager, self.operation, self.subresource) == (other.manager, other.operation, other.subresource)

    def entry(self) -> Object:
        shown_subresource = {"subresource": self.subresource} if self.subresource else {}
        return {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encoded(self.fields),
            **shown_subresource,
        }

    def __str__(self) -> str:
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation != "Update":
            return text
        return f"{text} using {self.api_version}" + (f" at {self.time}" if self.time else "")


@dataclass(frozen=True)
class Change:
    """Who writes, where and when."""

    manager: str
    api_version: str
    subresource: str
    now: str
    has_status: bool

    def owner(self, operation: str, fields: Iterable[Path]) -> Owner:
        owned = frozenset(path for path in fields if not self._is_ignored(path))
        return Owner(self.manager, operation, self.api_version, self.subresource, self.now, owned)

    def _is_ignored(self, path: Path) -> bool:
        if path[:1] in _IGNORED or path[:2] in _IGNORED:
            return True
        in_status = path[0] == "f:status"
        return not in_status if self.subresource == "status" else in_status and self.has_status


def apply(live: Object, applied: Object, shape: Shape, change: Change, *, force: bool) -> Object:
    """The object after an apply, with its owners; raises 409 for fields that others own and have otherwise."""
    if applied.get("metadata", {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    owners = owners_of(live) or _before_first_apply(live, shape, change)
    mine = change.owner("Apply", (path for path, _ in fields_of(applied, shape)))
    merged: Object = merge(live, _only(applied, mine, change), shape)
    changed = frozenset(_changed(live, merged, shape))
    others = [one for one in owners if not one.is_same(mine)]
    conflicts = [(one, path) for one in others for path in sorted(one.fields & changed & mine.fields)]
    lenient = _LAST_APPLIED in (live["metadata"].get("annotations") or {}) and change.manager == "kubectl"
    if not force and any(not (lenient and owner.manager == _CLIENT_SIDE_APPLY) for owner, _ in conflicts):
        raise _conflict(conflicts)
    taken = frozenset(path for _, path in conflicts)
    others = [replace(one, fields=one.fields - taken) for one in others]
    before = next((one for one in owners if one.is_same(mine)), None)
    if before is not None:
        merged = _without_abandoned(merged, before.fields - mine.fields, [*others, mine], shape)
        if before.fields == mine.fields and before.api_version == mine.api_version:
            mine = before
    _record(merged, [*others, mine])
    return merged


def created(obj: Object, shape: Shape, change: Change) -> list[Object]:
    """``managedFields`` of an object that an apply makes."""
    return [change.owner("Apply", (path for path, _ in fields_of(obj, shape))).entry()]


def track_update(old: Object, new: Object, shape: Shape, change: Change) -> None:
    """After any other write: what changed belongs to the writer. Nothing to do for what was never applied."""
    sent = new["metadata"].get("managedFields")
    if sent in ([], [{}]):
        del new["metadata"]["managedFields"]
        return
    base = sent if sent is not None else old["metadata"].get("managedFields")
    if not base:
        return
    owners = owners_of({"metadata": {"managedFields": base}})
    then, now = dict(fields_of(old, shape)), dict(fields_of(new, shape))
    changed = change.owner(
        "Update", (path for path, value in now.items() if path not in then or not is_same(then[path], value))
    )
    gone = frozenset(then.keys() - now.keys())
    if not changed.fields and not gone:
        new["metadata"]["managedFields"] = base
        return
    before = next((one.fields for one in owners if one.is_same(changed)), frozenset())
    others = [replace(one, fields=one.fields - changed.fields - gone) for one in owners if not one.is_same(changed)]
    _record(new, [*others, replace(changed, fields=(before | changed.fields) - gone)])


def owners_of(obj: Mapping[str, Any]) -> list[Owner]:
    entries = obj["metadata"].get("managedFields") or []
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise bad_request("metadata.managedFields must be a list of objects")
    return [
        Owner(
            str(one.get("manager", "")),
            str(one.get("operation", "Update")),
            str(one.get("apiVersion", "")),
            str(one.get("subresource", "")),
            str(one.get("time") or ""),
            frozenset(decoded(one.get("fieldsV1") or {})),
        )
        for one in entries
    ]


def _before_first_apply(live: Object, shape: Shape, change: Change) -> list[Owner]:
    applied_before = _LAST_APPLIED in (live["metadata"].get("annotations") or {})
    name = _CLIENT_SIDE_APPLY if applied_before else "before-first-apply"
    first = replace(change, manager=name, subresource="", now=live["metadata"].get("creationTimestamp", change.now))
    return [first.owner("Update", (path for path, _ in fields_of(live, shape)))]


def _only(applied: Object, mine: Owner, change: Change) -> Object:
    """Without what an apply at this place may not set: the server's fields, and status or all but status."""
    kept = {name: value for name, value in applied.items() if any(path[0] == f"f:{name}" for path in mine.fields)}
    metadata = {
        name: value
        for name, value in (applied.get("metadata") or {}).items()
        if name not in _SERVERS_METADATA or name in {"uid", "resourceVersion", "name", "namespace"}
    }
    return kept | ({"metadata": metadata} if metadata and change.subresource != "status" else {})


def _changed(live: Object, merged: Object, shape: Shape) -> Iterable[Path]:
    then = dict(fields_of(live, shape))
    return (path for path, value in fields_of(merged, shape) if path not in then or not is_same(then[path], value))


def _without_abandoned(merged: Object, abandoned: frozenset[Path], owners: list[Owner], shape: Shape) -> Object:
    """A list item goes as a whole when nobody owns any of it, and keeps its key as long as it stays."""
    kept = {path[:depth] for one in owners for path in one.fields for depth in range(1, len(path) + 1)}
    pruned = copy.deepcopy(merged)
    for path in sorted(abandoned - kept, key=len):
        if not is_key(path):
            remove(pruned, path, shape)
    return pruned


def _record(obj: Object, owners: Iterable[Owner]) -> None:
    owning = sorted((one for one in owners if one.fields), key=lambda one: (one.operation, one.time, one.manager))
    obj["metadata"] = {**obj["metadata"], "managedFields": [one.entry() for one in owning]}


def _conflict(conflicts: list[tuple[Owner, Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": shown(path)}
        for owner, path in conflicts
    ]
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        text = f"Apply failed with 1 conflict: conflict with {owner}: {shown(path)}"
    else:
        by_owner: dict[str, list[str]] = {}
        for owner, path in conflicts:
            by_owner.setdefault(str(owner), []).append(f"- {shown(path)}")
        lines = [line for owner, paths in sorted(by_owner.items()) for line in (f"conflicts with {owner}:", *paths)]
        text = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiError(failure(409, "Conflict", text, {"causes": causes}))
