"""Where all objects live: versioned, in memory, with a bounded history that watches read from.

Every write gets the next number of one counter for the whole store, as etcd's revision. The store keeps
objects as JSON bytes and hands out copies, so no caller can change what is stored. It knows nothing of
Kubernetes but ``metadata.resourceVersion``, which it writes. All calls are made from one thread, the loop's.
What is to outlive the process goes to a journal before anything changes in memory; reads never touch it.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from airflow_llmtune.controlplane.journal import Journal, Key, NoJournal

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind

__all__ = ["Change", "CompactedError", "Entry", "Key", "KeyAbsentError", "KeyExistsError", "Store", "Subscription"]

_AFTER_ANY_NAME = "\U0010ffff"

# The newest changes are kept whatever their size, and in parsed form, which takes some eight times the memory of the
# JSON: watchers are seldom further behind.
_RECENT_CHANGES = 100
_HISTORY_BYTES = 4 * 1024 * 1024


class KeyExistsError(Exception):
    """Create found an object of that key."""


class KeyAbsentError(Exception):
    """Update or delete found no object of that key."""


class CompactedError(Exception):
    """The history no longer reaches back to the wanted revision."""

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {wanted} ({oldest})")


class Entry:
    """One stored version of one object."""

    __slots__ = ("_view", "key", "raw", "revision")

    def __init__(self, key: Key, revision: int, raw: bytes) -> None:
        self.key = key
        self.revision = revision
        self.raw = raw
        self._view: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, key: Key, revision: int, obj: Mapping[str, Any]) -> Entry:
        metadata = {**obj.get("metadata", {}), "resourceVersion": str(revision)}
        stored = {**obj, "metadata": metadata}
        raw = json.dumps(stored, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        return cls(key, revision, raw)

    @property
    def view(self) -> Mapping[str, Any]:
        """For reading only (selectors, tables): it is shared by everybody."""
        if self._view is None:
            self._view = json.loads(self.raw)
        return self._view

    def forget_view(self) -> None:
        """Free the parsed form; who asks for it again gets it parsed anew."""
        self._view = None

    def copy(self) -> dict[str, Any]:
        copied: dict[str, Any] = json.loads(self.raw)
        return copied


@dataclass(slots=True)
class Change:
    """One write. ``entry`` is the new state, or the last one of a deleted object."""

    entry: Entry
    previous: Entry | None
    deleted: bool = False
    lines: dict[str, bytes] = field(default_factory=dict)
    """Watch lines by event type, so that a change is serialised once for all watchers."""

    @property
    def revision(self) -> int:
        return self.entry.revision

    def shrink(self) -> None:
        """Keep nothing but the stored bytes."""
        self.lines.clear()
        self.entry.forget_view()
        if self.previous is not None:
            self.previous.forget_view()


class Subscription:
    """A cursor in one kind's history; it holds no queue, so a slow reader costs no memory, only its place."""

    def __init__(self, log: _Log, position: int, wake: asyncio.Event) -> None:
        self._log = log
        self._position = position
        self._wake = wake
        log.subscriptions.add(self)

    def wake(self) -> None:
        self._wake.set()

    def read(self) -> list[Change]:
        """All changes since the last call; raises CompactedError when some are already forgotten."""
        self._wake.clear()
        changes = self._log.since_position(self._position)
        self._position += len(changes)
        return changes

    async def wait(self, timeout_seconds: float | None = None) -> bool:
        """Whether something happened before the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._log.subscriptions.discard(self)


class _Log:
    """The recent changes of one kind; positions count all changes there ever were."""

    def __init__(self, limit: int, bytes_limit: int, revision: int) -> None:
        # Weak, so that a watch that nobody reads any more costs nothing even if it was never closed.
        self.subscriptions: WeakSet[Subscription] = WeakSet()
        self.compacted = revision
        self._limit = limit
        self._bytes_limit = bytes_limit
        self._bytes = 0
        self._start = 0
        self._changes: list[Change] = []

    def append(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += len(change.entry.raw)
        count = len(self._changes)
        if count > _RECENT_CHANGES:
            self._changes[-1 - _RECENT_CHANGES].shrink()
        # Trimmed in blocks: dropping the first element of a list at each write would move the whole list.
        if count >= 2 * self._limit or (count > _RECENT_CHANGES and self._bytes >= 2 * self._bytes_limit):
            self.compact(count - self._kept())
        for subscription in self.subscriptions:
            subscription.wake()

    def _kept(self) -> int:
        """How many of the newest changes stay within both limits."""
        left = self._bytes_limit
        for count, change in enumerate(reversed(self._changes)):
            left -= len(change.entry.raw)
            if count == self._limit or (left < 0 and count >= _RECENT_CHANGES):
                return count
        return len(self._changes)

    def compact(self, count: int) -> None:
        if count:
            self._bytes -= sum(len(change.entry.raw) for change in self._changes[:count])
            self.compacted = self._changes[count - 1].revision
            del self._changes[:count]
            self._start += count

    def compact_all(self) -> None:
        self.compact(len(self._changes))

    def lose_place(self) -> None:
        """Nobody's position is known any more, not even that of who has read everything."""
        self.compact_all()
        self._start += 1
        for subscription in self.subscriptions:
            subscription.wake()

    @property
    def end(self) -> int:
        return self._start + len(self._changes)

    def position_after(self, revision: int) -> int:
        if revision < self.compacted:
            raise CompactedError(revision, self.compacted)
        return self._start + bisect_left(self._changes, revision + 1, key=lambda change: change.revision)

    def since_position(self, position: int) -> list[Change]:
        if position < self._start:
            raise CompactedError(position, self._start)
        return self._changes[position - self._start :]


class _Table:
    """All objects of one kind, with their keys in order."""

    def __init__(self, resource: str, log: _Log, entries: Iterable[Entry]) -> None:
        self.resource = resource
        self.log = log
        self.entries = {entry.key: entry for entry in entries}
        self.order = sorted(self.entries)

    def keys(self, namespace: str | None, after: Key | None) -> list[Key]:
        start, end = 0, len(self.order)
        if namespace is not None:
            start = bisect_left(self.order, (namespace, ""))
            end = bisect_left(self.order, (namespace, _AFTER_ANY_NAME))
        if after is not None:
            start = max(start, bisect_left(self.order, after) + (after in self.entries))
        return self.order[start:end]


class Store:
    """``first_revision`` lets a new store start above the numbers that clients remember of an earlier one.

    The history of each kind is kept up to a number of changes and up to a number of bytes. It is not in the journal:
    who has not seen the newest revision of an earlier process has to list anew.
    """

    def __init__(
        self,
        *,
        history_limit: int = 10_000,
        history_bytes: int = _HISTORY_BYTES,
        first_revision: int = 0,
        journal: Journal | None = None,
    ) -> None:
        self._journal: Journal = journal or NoJournal()
        self.revision = self._journal.revision() or first_revision
        self._first_revision = self.revision
        self._history_limit = history_limit
        self._history_bytes = history_bytes
        self._tables: dict[tuple[str, str], _Table] = {}
        # By resource, until a kind asks for them: custom kinds are known only when others have been read.
        self._kept: dict[str, list[Entry]] = defaultdict(list)
        for resource, namespace, name, revision, body in self._journal.objects():
            self._kept[resource].append(Entry((namespace, name), revision, body))

    def create(self, kind: Kind, namespace: str, name: str, obj: Mapping[str, Any]) -> Entry:
        table = self._table(kind)
        key = (namespace, name)
        if key in table.entries:
            raise KeyExistsError(key)
        entry = Entry.of(key, self.revision + 1, obj)
        self._journal.add(table.resource, key, entry.revision, entry.raw)
        self.revision = entry.revision
        insort(table.order, key)
        table.entries[key] = entry
        table.log.append(Change(entry, None))
        return entry

    def get(self, kind: Kind, namespace: str, name: str) -> Entry | None:
        return self._table(kind).entries.get((namespace, name))

    def update(self, kind: Kind, namespace: str, name: str, obj: Mapping[str, Any]) -> Entry:
        table = self._table(kind)
        previous = self._existing(table, (namespace, name))
        entry = Entry.of(previous.key, self.revision + 1, obj)
        self._journal.replace(previous.revision, entry.revision, entry.raw)
        self.revision = entry.revision
        table.entries[previous.key] = entry
        table.log.append(Change(entry, previous))
        return entry

    def delete(self, kind: Kind, namespace: str, name: str, obj: Mapping[str, Any] | None = None) -> Entry:
        """Remove; ``obj`` is the final state that watchers see, by default the stored one."""
        table = self._table(kind)
        previous = self._existing(table, (namespace, name))
        last = Entry.of(previous.key, self.revision + 1, previous.view if obj is None else obj)
        self._journal.remove(previous.revision, last.revision)
        self.revision = last.revision
        del table.entries[previous.key]
        del table.order[bisect_left(table.order, previous.key)]
        table.log.append(Change(last, previous, deleted=True))
        return last

    def scan(self, kind: Kind, namespace: str | None = None, *, after: Key | None = None) -> Iterator[Entry]:
        """Entries in order of namespace and name, behind the key ``after``."""
        table = self._table(kind)
        return (table.entries[key] for key in table.keys(namespace, after))

    def scan_at(self, kind: Kind, revision: int, namespace: str | None = None) -> list[Entry]:
        """The entries as they were at a revision: what the later pages of a list must show."""
        table = self._table(kind)
        log = table.log
        then: dict[Key, Entry | None] = {}
        for change in log.since_position(log.position_after(revision)):
            then.setdefault(change.entry.key, change.previous)
        now = {entry.key: entry for entry in self.scan(kind, namespace)}
        for key, entry in then.items():
            if namespace in {None, key[0]}:
                now.pop(key, None)
                if entry is not None:
                    now[key] = entry
        return [now[key] for key in sorted(now)]

    def subscribe(
        self, kind: Kind, after_revision: int | None = None, wake: asyncio.Event | None = None
    ) -> Subscription:
        """Follow the changes of a kind after a revision (default: from now on).

        ``wake`` is set at each change; one that follows several kinds hands the same event to all of them.
        """
        log = self._table(kind).log
        position = log.end if after_revision is None else log.position_after(after_revision)
        return Subscription(log, position, wake or asyncio.Event())

    def compact(self) -> None:
        """Forget the whole history, as etcd does every few minutes: watches from older revisions get 410."""
        self._first_revision = self.revision
        for table in self._tables.values():
            table.log.compact_all()
            table.log.compacted = self.revision

    def resync(self) -> None:
        """End all subscriptions: whoever follows changes gets 410 and looks at everything anew."""
        for table in self._tables.values():
            table.log.lose_place()

    def _table(self, kind: Kind) -> _Table:
        # Not the kind itself: a custom one may get other short names or versions and is still the same resource.
        identity = (kind.group, kind.plural)
        table = self._tables.get(identity)
        if table is None:
            log = _Log(self._history_limit, self._history_bytes, self._first_revision)
            resource = "/".join(identity)
            table = self._tables[identity] = _Table(resource, log, self._kept.pop(resource, ()))
        return table

    def _existing(self, table: _Table, key: Key) -> Entry:
        entry = table.entries.get(key)
        if entry is None:
            raise KeyAbsentError(key)
        return entry
