"""Deletes what no longer has an owner, and finishes foreground and orphaning deletions.

An owner counts as present only if kind, name and uid agree: an object that was deleted and made again under
the same name does not adopt the old one's dependents. An owner of a kind that is not served counts as
present, as in a cluster, where the collector waits until it can look the kind up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.deletion import (
    FOREGROUND_FINALIZER,
    ORPHAN_FINALIZER,
    Propagation,
)
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, Kind
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.store import CompactedError, Entry, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_llmtune.controlplane.apiserver.registry import Registry

_Id = tuple[Kind, str, str]
"""Kind, namespace and name."""

_PORTION = 50
_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 60.0
_MOST_DOUBLINGS = 20

log = logging.getLogger(__name__)


class GarbageCollector:
    """Unlike a Controller it follows all kinds at once, and keeps an index from owners to dependents."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wake = asyncio.Event()
        self._subscriptions: dict[Kind, Subscription] = {}
        self._dependents: dict[str, set[_Id]] = defaultdict(set)
        self._owners: dict[_Id, dict[str, _Id | None]] = {}
        """For each dependent its owners, by uid."""
        self._dirty: dict[_Id, None] = {}
        self._retries: dict[_Id, tuple[int, float]] = {}
        """Failures so far, and when to try again."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._read():
                self._process_some()
                await asyncio.sleep(0)  # A large family goes in portions, so that requests are answered meanwhile.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._seconds_to_retry())

    def collect(self) -> None:
        """Work until nothing is left to do."""
        while self._read():
            self._process_some()

    def _process_some(self) -> None:
        for identity in list(itertools.islice(self._dirty, _PORTION)):
            del self._dirty[identity]
            try:
                self._process(identity)
            except Exception as error:  # noqa: BLE001  one odd object must not keep all others from going
                self._retry_later(identity, error)
            else:
                self._retries.pop(identity, None)

    def _retry_later(self, identity: _Id, error: Exception) -> None:
        failures = self._retries.get(identity, (0, 0.0))[0] + 1
        delay = min(_FIRST_RETRY_SECONDS * 2 ** min(failures, _MOST_DOUBLINGS), _LONGEST_RETRY_SECONDS)
        self._retries[identity] = (failures, time.monotonic() + delay)
        # A conflict is how optimistic locking says "read again": no fault, so no log line.
        if not (isinstance(error, ApiError) and error.reason == "Conflict"):
            kind, namespace, name = identity
            log.warning("collecting %s %s/%s failed: %s", kind.name, namespace, name, error)

    def _seconds_to_retry(self) -> float | None:
        now = time.monotonic()
        return min((max(0.0, due - now) for _, due in self._retries.values()), default=None)

    def _read(self) -> bool:
        """Bring the index up to date; whether there is something to look at."""
        self._wake.clear()
        kinds_changed = not self._subscriptions
        try:
            for kind, subscription in self._subscriptions.items():
                for change in subscription.read():
                    self._note(kind, change.entry, deleted=change.deleted)
                    kinds_changed |= kind == CUSTOM_RESOURCE_DEFINITION
            if kinds_changed:
                self._start_afresh()
        except CompactedError:
            self._start_afresh()
        now = time.monotonic()
        self._dirty.update(dict.fromkeys(one for one, (_, due) in self._retries.items() if due <= now))
        return bool(self._dirty)

    def _start_afresh(self) -> None:
        self._dependents.clear()
        self._owners.clear()
        store = self._registry.store
        kinds = self._registry.kinds.resources()
        self._subscriptions = {kind: store.subscribe(kind, wake=self._wake) for kind in kinds}
        for kind in kinds:
            for entry in store.scan(kind):
                self._note(kind, entry, deleted=False)

    def _note(self, kind: Kind, entry: Entry, *, deleted: bool) -> None:
        identity = (kind, *entry.key)
        metadata = entry.view["metadata"]
        owners = {} if deleted else self._owners_in(entry)
        for uid, owner in self._owners.pop(identity, {}).items():
            if uid not in owners:
                self._unlink(uid, owner, identity)
        if deleted:
            self._dirty.update(dict.fromkeys(self._dependents.get(metadata["uid"], ())))
            return
        if owners:
            self._owners[identity] = owners
            for uid in owners:
                self._dependents[uid].add(identity)
        if owners or "deletionTimestamp" in metadata:
            self._dirty[identity] = None

    def _unlink(self, uid: str, owner: _Id | None, dependent: _Id) -> None:
        """Forget a dependent; its owner is looked at again, for it may have waited for that."""
        self._dependents[uid].discard(dependent)
        if not self._dependents[uid]:
            del self._dependents[uid]
        if owner is not None:
            self._dirty[owner] = None

    def _process(self, identity: _Id) -> None:
        obj = self._registry.find(*identity)
        if obj is None:
            return
        if "deletionTimestamp" not in obj["metadata"]:
            self._delete_if_ownerless(identity, obj)
            return
        finalizers = obj["metadata"].get("finalizers", [])
        if ORPHAN_FINALIZER in finalizers:
            self._orphan_dependents(identity, obj)
        elif FOREGROUND_FINALIZER in finalizers:
            self._delete_dependents(identity, obj)

    def _delete_if_ownerless(self, identity: _Id, obj: dict[str, Any]) -> None:
        references = obj["metadata"].get("ownerReferences", [])
        states = [self._owner_state(identity, reference) for reference in references]
        gone = [ref["uid"] for ref, state in zip(references, states, strict=True) if state != "present"]
        if not gone:
            return
        if len(gone) < len(references):
            self._drop_owners(identity, obj, gone)
            return
        foreground = "waiting" in states and bool(self._dependents.get(obj["metadata"]["uid"]))
        propagation: Propagation = "Foreground" if foreground else "Background"
        self._registry.delete(*identity, propagation=propagation, uid=obj["metadata"]["uid"])

    def _owner_state(self, identity: _Id, reference: Mapping[str, Any]) -> str:
        """``present``, ``absent``, or ``waiting`` in a foreground deletion for its dependents to go."""
        owner_id = self._identify(reference, identity[1])
        if owner_id is None:
            return "present"
        entry = self._registry.store.get(*owner_id)
        if entry is None or entry.view["metadata"]["uid"] != reference["uid"]:
            return "absent"
        metadata = entry.view["metadata"]
        waiting = "deletionTimestamp" in metadata and FOREGROUND_FINALIZER in metadata.get("finalizers", [])
        return "waiting" if waiting else "present"

    def _delete_dependents(self, identity: _Id, owner: dict[str, Any]) -> None:
        """Foreground: dependents that block go first, each by ``_delete_if_ownerless``; then the owner."""
        uid = owner["metadata"]["uid"]
        dependents = self._dependents.get(uid, set())
        self._dirty.update(dict.fromkeys(self._not_deleted_yet(dependents)))
        if not any(self._blocks(dependent, uid) for dependent in dependents):
            self._remove_finalizer(identity, owner, FOREGROUND_FINALIZER)

    def _not_deleted_yet(self, identities: Iterable[_Id]) -> list[_Id]:
        entries = [(identity, self._registry.store.get(*identity)) for identity in identities]
        return [identity for identity, entry in entries if entry and "deletionTimestamp" not in entry.view["metadata"]]

    def _blocks(self, dependent: _Id, owner_uid: str) -> bool:
        entry = self._registry.store.get(*dependent)
        references = entry.view["metadata"].get("ownerReferences", []) if entry else []
        return any(ref["uid"] == owner_uid and ref.get("blockOwnerDeletion") for ref in references)

    def _orphan_dependents(self, identity: _Id, owner: dict[str, Any]) -> None:
        uid = owner["metadata"]["uid"]
        for dependent in list(self._dependents.get(uid, ())):
            obj = self._registry.find(*dependent)
            if obj is not None:
                self._drop_owners(dependent, obj, [uid])
        self._remove_finalizer(identity, owner, ORPHAN_FINALIZER)

    def _drop_owners(self, identity: _Id, obj: dict[str, Any], uids: list[str]) -> None:
        kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] not in uids]
        self._patch_metadata(identity, {"ownerReferences": kept or None})

    def _remove_finalizer(self, identity: _Id, obj: dict[str, Any], finalizer: str) -> None:
        kept = [one for one in obj["metadata"]["finalizers"] if one != finalizer]
        self._patch_metadata(identity, {"finalizers": kept or None})

    def _patch_metadata(self, identity: _Id, change: dict[str, Any]) -> None:
        self._registry.patch(*identity, MERGE, {"metadata": change})

    def _identify(self, reference: Mapping[str, Any], namespace: str) -> _Id | None:
        """The owner a reference points to: in the dependent's namespace, or cluster-scoped."""
        kind = self._registry.kinds.find(reference["apiVersion"], reference["kind"])
        if kind is None:
            return None
        return (kind, namespace if kind.namespaced else "", reference["name"])

    def _owners_in(self, entry: Entry) -> dict[str, _Id | None]:
        references = entry.view["metadata"].get("ownerReferences") or []
        return {reference["uid"]: self._identify(reference, entry.key[0]) for reference in references}
