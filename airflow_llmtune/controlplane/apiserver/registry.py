"""What an API server does to every object, whoever asks: HTTP clients, controllers and the kubelet alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import uuid4

from airflow_llmtune.controlplane.apiserver import metadata as meta
from airflow_llmtune.controlplane.apiserver.built_in import prepare
from airflow_llmtune.controlplane.apiserver.deletion import (
    HOLDING_FINALIZER,
    Propagation,
    awaits_kubelet,
    grace_seconds,
    is_held,
    shortens_grace,
)
from airflow_llmtune.controlplane.apiserver.errors import (
    already_exists,
    bad_request,
    forbidden,
    not_found,
    unsupported_media_type,
)
from airflow_llmtune.controlplane.apiserver.events import EventLog
from airflow_llmtune.controlplane.apiserver.kinds import EVENT, NAMESPACE, Kind
from airflow_llmtune.controlplane.apiserver.patch import APPLY, accepted_types, apply_patch
from airflow_llmtune.controlplane.apiserver.selectors import matcher
from airflow_llmtune.controlplane.apiserver.watch import Watch
from airflow_llmtune.controlplane.clock import Clock, timestamp, utc_now
from airflow_llmtune.controlplane.store import Entry, Key, KeyExistsError, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]
Objects = list[Object]


class Admission(Protocol):
    """Defaulting, mutation and validation of an object on its way in; raises ApiError to refuse it.

    It may change ``obj`` in place and return it: it is a copy. On CREATE the object already has its name and
    uid, and no status (kinds with a status subresource lose the client's); a status that admission sets is
    kept, a Pod's phase for example.
    """

    def admit(
        self,
        operation: Literal["CREATE", "UPDATE"],
        kind: Kind,
        obj: Object,
        old: Object | None,
        namespace: Object | None,
    ) -> Object: ...


class Registry:
    """All objects that are handed in are copied, all that are handed out are copies."""

    def __init__(self, store: Store, admission: Admission, clock: Clock = utc_now) -> None:
        self.store = store
        self._admission = admission
        self._clock = clock
        self._events = EventLog(store)

    # Reading

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return self._entry(kind, namespace, name).copy()

    def find(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        entry = self.store.get(kind, self._scope(kind, namespace), name)
        return None if entry is None else entry.copy()

    def list(
        self, kind: Kind, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[Objects, str]:
        entries = self.entries(kind, namespace, label_selector=label_selector, field_selector=field_selector)
        return [entry.copy() for entry in entries], self.resource_version

    def entries(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        after: Key | None = None,
    ) -> Iterator[Entry]:
        """Like ``list``, without the copies: for callers that only read and want the stored bytes."""
        matches = matcher(kind, label_selector, field_selector)
        scanned = self.store.scan(kind, namespace, after=after)
        return scanned if matches is None else (entry for entry in scanned if matches(entry.view))

    @property
    def resource_version(self) -> str:
        return str(self.store.revision)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        send_initial_events: bool = False,
        timeout_seconds: float | None = None,
    ) -> Watch:
        """Changes after a resourceVersion; with "" or "0" first an ADDED for all that exists now."""
        return Watch(
            self.store,
            kind,
            namespace,
            matcher(kind, label_selector, field_selector),
            resource_version=resource_version,
            bookmarks=bookmarks,
            send_initial_events=send_initial_events,
            timeout_seconds=timeout_seconds,
        )

    # Writing

    def create(self, kind: Kind, obj: Object, namespace: str | None = None, *, dry_run: bool = False) -> Object:
        new = _copied(obj)
        meta.check_shape(kind, new)
        new.update(apiVersion=kind.api_version, kind=kind.name)
        metadata = new.setdefault("metadata", {})
        scope = self._scope_of(kind, metadata, namespace)
        home = self._home_for_create(kind, scope)
        meta.fill_for_create(kind, metadata, scope, self._now())
        if kind.has_status:
            new.pop("status", None)
        prepare(kind, new, is_new=True)
        new = self._admission.admit("CREATE", kind, new, None, home)
        meta.check_rules(kind, new["metadata"])
        name = new["metadata"]["name"]
        if dry_run:
            if self.store.get(kind, scope, name) is not None:
                raise already_exists(kind, name)
            return new
        try:
            return self.store.create(kind, scope, name, new).copy()
        except KeyExistsError:
            raise already_exists(kind, name) from None

    def update(self, kind: Kind, obj: Object, *, dry_run: bool = False) -> Object:
        """Replace all but the status; custom resources need their resourceVersion, others may carry it.

        Writing what is stored already changes nothing, not even the resourceVersion.
        """
        new, old = self._updated(kind, obj)
        if kind.has_status:
            _take(new, old, "status")
        prepare(kind, new, is_new=False)
        home = self.find(NAMESPACE, None, old["metadata"].get("namespace", ""))
        new = self._admission.admit("UPDATE", kind, new, old, home)
        meta.check_rules(kind, new["metadata"])
        if kind.has_status and _desired(new) != _desired(old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        return self._save(kind, new, old, dry_run)

    def update_status(self, kind: Kind, obj: Object, *, dry_run: bool = False) -> Object:
        """Replace the status and nothing else; no admission, no new generation."""
        new, old = self._updated(kind, obj)
        changed = {**old}
        _take(changed, new, "status")
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
    ) -> Object:
        """Merge, JSON or (built-in kinds) strategic merge patch; an apply patch also creates."""
        if content_type not in accepted_types(kind):
            raise unsupported_media_type(accepted_types(kind))
        current = self.find(kind, namespace, name)
        if current is None:
            if content_type != APPLY or subresource or not isinstance(patch, dict):
                raise not_found(kind, name)
            return self.create(kind, meta.named(patch, name), namespace, dry_run=dry_run)
        patched = apply_patch(kind, current, content_type, patch)
        meta.keep_identity(meta.of(patched), current["metadata"])
        write = self.update_status if subresource == "status" else self.update
        return write(kind, patched, dry_run=dry_run)

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
        entry = self._entry(kind, namespace, name)
        obj = entry.copy()
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
            return self.store.delete(kind, entry.key[0], name).copy()
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

    def _entry(self, kind: Kind, namespace: str | None, name: str) -> Entry:
        entry = self.store.get(kind, self._scope(kind, namespace), name)
        if entry is None:
            raise not_found(kind, name)
        return entry

    def _scope(self, kind: Kind, namespace: str | None) -> str:
        return (namespace or "") if kind.namespaced else ""

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
        new = _copied(obj)
        meta.check_shape(kind, new)
        new.update(apiVersion=kind.api_version, kind=kind.name)
        metadata = new.get("metadata", {})
        old = self.get(kind, metadata.get("namespace"), metadata.get("name", ""))
        meta.carry_over(kind, metadata, old["metadata"])
        return new, old

    def _save(self, kind: Kind, new: Object, old: Object, dry_run: bool) -> Object:
        if new == old or dry_run:
            return new
        scope, name = self._scope(kind, new["metadata"].get("namespace")), new["metadata"]["name"]
        if "deletionTimestamp" in new["metadata"] and not is_held(kind, new) and not awaits_kubelet(kind, new):
            return self.store.delete(kind, scope, name, new).copy()
        return self.store.update(kind, scope, name, new).copy()


def _copied(obj: Object) -> Object:
    try:
        # Encoded, as the store will do it: half of a surrogate pair is no text.
        copied = json.loads(json.dumps(obj, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
    if not isinstance(copied, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object)")
    return copied


def _take(target: Object, source: Object, field: str) -> None:
    if source.get(field) is not None:
        target[field] = source[field]
    else:
        target.pop(field, None)


def _desired(obj: Object) -> Object:
    return {field: value for field, value in obj.items() if field not in {"metadata", "status"}}
