"""core/v1 Events: repeated ones are counted in one object, old ones are forgotten after an hour."""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import EVENT
from airflow_llmtune.controlplane.clock import parse_timestamp, timestamp

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.store import Key, Store

COMPONENT = "llmtune-control-plane"
LIFETIME = timedelta(hours=1)


class EventLog:
    """Writes Events straight to the store: no admission applies to them and no namespace need exist."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last_seen = OrderedDict(sorted(_kept(store), key=lambda one: one[1]))

    def record(
        self,
        involved: dict[str, Any],
        type_: str,
        reason: str,
        message: str,
        metadata: dict[str, Any],
        now: datetime,
    ) -> None:
        """``metadata`` is what a fresh Event gets (uid, creation time); an aggregated one keeps its own."""
        self._forget_old(now)
        about = involved["metadata"]
        key = (about["uid"], type_, reason, message)
        namespace = about.get("namespace") or "default"
        digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
        name = f"{about['name']}.{digest}"
        self._last_seen[namespace, name] = now
        self._last_seen.move_to_end((namespace, name))
        entry = self._store.get(EVENT, namespace, name)
        if entry is not None:
            seen = entry.copy()
            seen.update(count=seen.get("count", 1) + 1, lastTimestamp=timestamp(now))
            self._store.update(EVENT, namespace, name, seen)
            return
        metadata = {**metadata, "name": name, "namespace": namespace}
        self._store.create(EVENT, namespace, name, _event(involved, type_, reason, message, metadata, timestamp(now)))

    def _forget_old(self, now: datetime) -> None:
        while self._last_seen:
            key, seen = next(iter(self._last_seen.items()))
            if now - seen < LIFETIME:
                return
            if self._store.get(EVENT, *key) is not None:
                self._store.delete(EVENT, *key)
            del self._last_seen[key]


def _kept(store: Store) -> Iterator[tuple[Key, datetime]]:
    """Ours of an earlier process, which are counted on and forgotten like those of this one."""
    for entry in store.scan(EVENT):
        event = entry.copy()
        if event.get("reportingComponent") == COMPONENT:
            # Clients may change an Event as they like.
            with contextlib.suppress(ValueError, OverflowError):
                yield entry.key, parse_timestamp(str(event.get("lastTimestamp"))).astimezone(UTC)


def _event(
    involved: dict[str, Any], type_: str, reason: str, message: str, metadata: dict[str, Any], now: str
) -> dict[str, Any]:
    about = involved["metadata"]
    reference = {
        "kind": involved["kind"],
        "namespace": about.get("namespace"),
        "name": about["name"],
        "uid": about["uid"],
        "apiVersion": involved["apiVersion"],
        "resourceVersion": about.get("resourceVersion"),
    }
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.name,
        "metadata": metadata,
        "involvedObject": {field: value for field, value in reference.items() if value},
        "reason": reason,
        "message": message,
        "source": {"component": COMPONENT},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": type_,
        "eventTime": None,
        "reportingComponent": COMPONENT,
        "reportingInstance": "",
    }
