"""What an API server does to every object, whoever asks: HTTP clients, controllers and the kubelet alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, Protocol
from uuid import uuid4

from airflow_llmtune.controlplane.apiserver import metadata as meta
from airflow_llmtune.controlplane.apiserver import server_side_apply as ssa
from airflow_llmtune.controlplane.apiserver.built_in import prepare
from airflow_llmtune.controlplane.apiserver.definitions import BUILT_IN_NAMES, built_in_is_fixed
from airflow_llmtune.controlplane.apiserver.deletion import (
    HOLDING_FINALIZER,
    Propagation,
    awaits_kubelet,
    grace_seconds,
    is_held,
    shortens_grace,
)
from airflow_llmtune.controlplane.apiserver.errors import (
    ApiError,
    already_exists,
    bad_request,
    forbidden,
    not_found,
    unsupported_media_type,
)
from airflow_llmtune.controlplane.apiserver.events import COMPONENT, EventLog
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, EVENT, NAMESPACE, Kind
from airflow_llmtune.controlplane.apiserver.objects import copied, desired, is_name_generated, is_same, take
from airflow_llmtune.controlplane.apiserver.patch import accepted_types, apply_patch
from airflow_llmtune.controlplane.apiserver.reader import Reader
from airflow_llmtune.controlplane.apiserver.shapes import Shape
from airflow_llmtune.controlplane.apiserver.versions import shown_as
from airflow_llmtune.controlplane.clock import Clock, timestamp, utc_now
from airflow_llmtune.controlplane.store import KeyExistsError, Store

Object = dict[str, Any]
Objects = list[Object]
Own = Callable[[Object, Object], None]
"""Writes the owners of fields into the second object, given the first as it was before."""

# As often as a real server tries another suffix when the name it made is taken.
_GENERATED_NAMES = 7


class Admission(Protocol):
    """Defaulting, mutation and validation of an object on its way in; raises ApiError to refuse it.

    It may change ``obj`` in place and return it: it is a copy. On CREATE the object already has its name and uid, and
    no status (kinds with a status subresource lose the client's); one that admission sets is kept, a Pod's phase.
    """

    def admit(
        self,
        operation: Literal["CREATE", "UPDATE"],
        kind: Kind,
        obj: Object,
        old: Object | None,
        namespace: Object | None,
    ) -> Object: ...


class Registry(Reader):
    """All objects that are handed in are copied, all that are handed out are copies.

    ``manager`` names the writer to objects that were applied by the server; controllers share the one default.
    """

    def __init__(self, store: Store, admission: Admission, clock: Clock = utc_now) -> None:
        super().__init__(store)
        self._admission = admission
        self._clock = clock
        self._events = EventLog(store)

    # Writing

    def create(
        self,
        kind: Kind,
        obj: Object,
        namespace: str | None = None,
        *,
        dry_run: bool = False,
        managed_fields: Objects | None = None,
    ) -> Object:
        for _ in range(_GENERATED_NAMES):
            try:
                return self._create(kind, obj, namespace, dry_run, managed_fields)
            except ApiError as error:
                if error.reason != "AlreadyExists" or not is_name_generated(obj):
                    raise
        return self._create(kind, obj, namespace, dry_run, managed_fields)

    def _create(
        self, kind: Kind, obj: Object, namespace: str | None, dry_run: bool, managed_fields: Objects | None
    ) -> Object:
        new = copied(obj)
        meta.check_shape(kind, new)
        new.update(apiVersion=kind.api_version, kind=kind.name)
        metadata = new.setdefault("metadata", {})
        scope = self._scope_of(kind, metadata, namespace)
        home = self._home_for_create(kind, scope)
        meta.fill_for_create(kind, metadata, scope, self._now())
        if not metadata.get("name"):
            meta.check_rules(kind, metadata)  # All that follow rely on a name.
        if kind.has_status:
            new.pop("status", None)
        prepare(kind, new, None)
        self.kinds.prepare(kind, new, None, self._now())
        new = self._admission.admit("CREATE", kind, new, None, home)
        meta.check_rules(kind, new["metadata"])
        if managed_fields:
            new["metadata"]["managedFields"] = managed_fields
        name = new["metadata"]["name"]
        if dry_run:
            if self.store.get(kind, scope, name) is not None:
                raise already_exists(kind, name)
            return new
        try:
            return self.store.create(kind, scope, name, new).copy()
        except KeyExistsError:
            raise already_exists(kind, name) from None

    def update(self, kind: Kind, obj: Object, *, dry_run: bool = False, manager: str = COMPONENT) -> Object:
        """Replace all but the status; custom resources need their resourceVersion, others may carry it.

        Writing what is stored already changes nothing, not even the resourceVersion.
        """
        return self._update(kind, obj, dry_run, self._tracking(kind, manager))

    def _update(self, kind: Kind, obj: Object, dry_run: bool, own: Own) -> Object:
        new, old = self._updated(kind, obj)
        if kind.has_status:
            take(new, old, "status")
        prepare(kind, new, old)
        self.kinds.prepare(kind, new, old, self._now())
        home = self.find(NAMESPACE, None, old["metadata"].get("namespace", ""))
        new = self._admission.admit("UPDATE", kind, new, old, home)
        meta.check_rules(kind, new["metadata"])
        if "generation" in old["metadata"] and not is_same(desired(kind, new), desired(kind, old)):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        own(old, new)
        return self._save(kind, new, old, dry_run)

    def update_status(self, kind: Kind, obj: Object, *, dry_run: bool = False, manager: str = COMPONENT) -> Object:
        """Replace the status and nothing else; no admission, no new generation."""
        return self._update_status(kind, obj, dry_run, self._tracking(kind, manager, "status"))

    def _update_status(self, kind: Kind, obj: Object, dry_run: bool, own: Own) -> Object:
        new, old = self._updated(kind, obj)
        changed = {**old, "metadata": {**old["metadata"]}}
        take(changed, new, "status")
        self.kinds.prepare(kind, changed, old, self._now())
        if "managedFields" in new["metadata"]:
            changed["metadata"]["managedFields"] = new["metadata"]["managedFields"]
        own(old, changed)
        return self._save(kind, changed, old, dry_run)

    def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        content_type: str,
        patch: Any,
        *,
        subresource: str = "",
        dry_run: bool = False,
        manager: str = COMPONENT,
    ) -> Object:
        """Merge, JSON or (built-in kinds) strategic merge patch."""
        if content_type not in accepted_types(kind):
            raise unsupported_media_type(accepted_types(kind))
        current = self.get(kind, namespace, name)
        patched = apply_patch(current, content_type, patch)
        meta.keep_identity(meta.of(patched), current["metadata"])
        write = self.update_status if subresource == "status" else self.update
        return write(kind, patched, dry_run=dry_run, manager=manager)

    def apply(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        applied: Any,
        *,
        manager: str,
        force: bool = False,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply, which also creates; raises 409 for fields that other managers own."""
        if not isinstance(applied, dict):
            raise bad_request("error decoding patch: the applied configuration must be an object")
        meta.check_shape(kind, applied)
        current = self.find(kind, namespace, name)
        shape, change = self._shape(kind), self._change(kind, manager, subresource)
        if current is None:
            if subresource:
                raise not_found(kind, name)
            managed_fields = ssa.created(applied, shape, change)
            obj = meta.named(applied, name)
            return self.create(kind, obj, namespace, dry_run=dry_run, managed_fields=managed_fields)
        merged = ssa.apply(current, meta.named(applied, name), shape, change, force=force)
        meta.keep_identity(meta.of(merged), current["metadata"])
        owners = merged["metadata"]["managedFields"]

        def own(old: Object, new: Object) -> None:  # noqa: ARG001  one signature
            new["metadata"]["managedFields"] = owners

        write = self._update_status if subresource == "status" else self._update
        return write(kind, merged, dry_run, own)

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Remove, or mark with a deletionTimestamp what finalizers or a pod's grace period still hold.

        A Pod that is bound to a node (``spec.nodeName``) and not finished is only marked: the kubelet stops
        its processes and then calls this again with a grace period of 0, which removes it.
        """
        if kind == CUSTOM_RESOURCE_DEFINITION and name in BUILT_IN_NAMES:
            raise built_in_is_fixed(name, "deleted")
        entry = self._entry(kind, namespace, name)
        obj = shown_as(kind, entry.copy())
        metadata = obj["metadata"]
        meta.check_preconditions(kind, metadata, uid, resource_version)
        grace = grace_seconds(kind, obj, grace_period_seconds)
        finalizer = HOLDING_FINALIZER.get(propagation)
        marked = "deletionTimestamp" in metadata
        if finalizer and not marked:
            metadata["finalizers"] = [*metadata.get("finalizers", []), finalizer]
        held = is_held(kind, obj)
        if dry_run:
            return obj
        if not held and not grace:
            return shown_as(kind, self.store.delete(kind, entry.key[0], name).copy())
        if marked and not shortens_grace(metadata, grace):
            return obj
        metadata["deletionTimestamp"] = timestamp(self._clock() + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if "generation" in metadata:
            metadata["generation"] += 0 if marked else 1
        if kind is NAMESPACE:
            obj["status"] = {"phase": "Terminating"}
        return self.store.update(kind, entry.key[0], name, obj).copy()

    def record_event(self, involved: Object, type_: str, reason: str, message: str) -> None:
        """A core/v1 Event about an object; the same one again only counts up."""
        fresh = {"uid": str(uuid4()), "creationTimestamp": self._now()}
        self._events.record(involved, type_, reason, message, fresh, self._clock())

    # Parts of the above

    def _now(self) -> str:
        return timestamp(self._clock())

    def _shape(self, kind: Kind) -> Shape:
        version = self.kinds.version(kind)
        return Shape(schema=version.schema if version else {} if kind.is_custom else None)

    def _change(self, kind: Kind, manager: str, subresource: str) -> ssa.Change:
        return ssa.Change(manager, kind.api_version, subresource, self._now(), kind.has_status)

    def _tracking(self, kind: Kind, manager: str, subresource: str = "") -> Own:
        def own(old: Object, new: Object) -> None:
            if "managedFields" in old["metadata"] or "managedFields" in new["metadata"]:
                ssa.track_update(old, new, self._shape(kind), self._change(kind, manager, subresource))

        return own

    def _scope_of(self, kind: Kind, metadata: Mapping[str, Any], namespace: str | None) -> str:
        if not kind.namespaced:
            return ""
        named = metadata.get("namespace")
        if named and namespace and named != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        scope = namespace or named
        if not scope:
            raise bad_request("an empty namespace may not be set during creation")
        return str(scope)

    def _home_for_create(self, kind: Kind, scope: str) -> Object | None:
        if not kind.namespaced:
            return None
        home = self.find(NAMESPACE, None, scope)
        if home is None:
            raise not_found(NAMESPACE, scope)
        if "deletionTimestamp" in home["metadata"] and kind is not EVENT:
            why = f"unable to create new content in namespace {scope} because it is being terminated"
            raise forbidden(why, kind, "")
        return home

    def _updated(self, kind: Kind, obj: Object) -> tuple[Object, Object]:
        """The wanted object with the server's fields restored, and the stored one."""
        new = copied(obj)
        meta.check_shape(kind, new)
        new.update(apiVersion=kind.api_version, kind=kind.name)
        metadata = new.get("metadata", {})
        old = self.get(kind, metadata.get("namespace"), metadata.get("name", ""))
        meta.carry_over(kind, metadata, old["metadata"])
        return new, old

    def _save(self, kind: Kind, new: Object, old: Object, dry_run: bool) -> Object:
        if dry_run or is_same(new, old):
            return new
        scope, name = self._scope(kind, new["metadata"].get("namespace")), new["metadata"]["name"]
        if "deletionTimestamp" in new["metadata"] and not is_held(kind, new) and not awaits_kubelet(kind, new):
            return self.store.delete(kind, scope, name, new).copy()
        return self.store.update(kind, scope, name, new).copy()
