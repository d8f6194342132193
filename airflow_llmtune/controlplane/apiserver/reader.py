"""The reading half of the registry: objects, lists and watches, each in the version that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from airflow_llmtune.controlplane.apiserver.catalog import KindCatalog
from airflow_llmtune.controlplane.apiserver.errors import not_found
from airflow_llmtune.controlplane.apiserver.selectors import matcher
from airflow_llmtune.controlplane.apiserver.versions import shown_as
from airflow_llmtune.controlplane.apiserver.watch import Watch
from airflow_llmtune.controlplane.store import Entry, Key, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_llmtune.controlplane.apiserver.kinds import Kind

Object = dict[str, Any]
Objects = list[Object]


class Reader:
    """All objects that are handed out are copies."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kinds = KindCatalog(store)
        self._custom_watches: WeakSet[Watch] = WeakSet()

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        return shown_as(kind, self._entry(kind, namespace, name).copy())

    def find(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        entry = self.store.get(kind, self._scope(kind, namespace), name)
        return None if entry is None else shown_as(kind, entry.copy())

    def list(
        self, kind: Kind, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[Objects, str]:
        entries = self.entries(kind, namespace, label_selector=label_selector, field_selector=field_selector)
        return [shown_as(kind, entry.copy()) for entry in entries], self.resource_version

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
        watch = Watch(
            self.store,
            kind,
            namespace,
            matcher(kind, label_selector, field_selector),
            resource_version=resource_version,
            bookmarks=bookmarks,
            send_initial_events=send_initial_events,
            timeout_seconds=timeout_seconds,
        )
        if self.kinds.version(kind) is not None:
            self._custom_watches.add(watch)
        return watch

    def end_watches(self, kind: Kind) -> None:
        """Of a kind that is no longer served."""
        for watch in list(self._custom_watches):
            if watch.kind == kind:
                watch.stop()

    def _entry(self, kind: Kind, namespace: str | None, name: str) -> Entry:
        entry = self.store.get(kind, self._scope(kind, namespace), name)
        if entry is None:
            raise not_found(kind, name)
        return entry

    def _scope(self, kind: Kind, namespace: str | None) -> str:
        return (namespace or "") if kind.namespaced else ""
