"""Watches: an ordered stream of changes of one kind, seen through a namespace and selectors."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_llmtune.controlplane.apiserver.errors import bad_request, expired, too_large_resource_version
from airflow_llmtune.controlplane.apiserver.versions import raw_as
from airflow_llmtune.controlplane.store import Change, CompactedError, Entry, Store, Subscription

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind
    from airflow_llmtune.controlplane.apiserver.selectors import Match

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

BOOKMARK_SECONDS = 10.0
"""Real servers send a bookmark about once a minute; more often costs nothing here."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_LONGEST_VERSION = 20
"""Digits of the largest 64-bit number."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: EventType
    line: bytes
    """The event as it goes over the wire, with the newline; shared by all watchers."""

    @property
    def object(self) -> dict[str, Any]:
        """A copy of the object that the caller may change."""
        decoded: dict[str, Any] = json.loads(self.line)["object"]
        return decoded


def parse_resource_version(text: str) -> int | None:
    """None for "" and "0", which ask for whatever the server has now."""
    if text in {"", "0"}:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_VERSION):
        raise bad_request(f'invalid resource version "{text}"')
    return int(text)


def _wake(subscription: weakref.ref[Subscription]) -> None:
    # Weak: an alarm must not keep a watch alive that nobody reads any more.
    sleeping = subscription()
    if sleeping is not None:
        sleeping.wake()


def _line(event_type: EventType, raw: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), raw)


def _event(kind: Kind, event_type: EventType, change: Change) -> WatchEvent:
    # All watchers of a version share one line; the version tells apart what a conversion makes of it.
    shared = f"{event_type} {kind.version}" if kind.converts else event_type
    line = change.lines.get(shared)
    if line is None:
        entry = change.entry
        if event_type == "DELETED" and not change.deleted and change.previous is not None:
            # It only left the selection: the watcher sees it as it last knew it, at the new version.
            entry = Entry.of(entry.key, entry.revision, change.previous.view)
        line = change.lines[shared] = _line(event_type, raw_as(kind, entry))
    return WatchEvent(event_type, line)


class Watch(AsyncIterator[WatchEvent]):
    """An open watch. It raises ApiError 410 when the reader was too slow or started too early.

    It begins when it is made, not at the first read. A watch that is dropped without ``stop`` leaves nothing.
    """

    def __init__(
        self,
        store: Store,
        kind: Kind,
        namespace: str | None,
        matches: Match | None,
        *,
        resource_version: str = "",
        bookmarks: bool = False,
        send_initial_events: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        self._store = store
        self.kind = kind
        self._namespace = namespace
        self._matches = matches
        self._after = parse_resource_version(resource_version)
        if self._after is not None and self._after > store.revision:
            raise too_large_resource_version(self._after, store.revision)
        self._bookmarks = bookmarks
        self._timeout_seconds = timeout_seconds
        self._deadline: float | None = None
        self._next_bookmark = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._stopped = False
        self._ready: deque[WatchEvent] = deque()
        initially = self._after is None or send_initial_events
        self._subscription = self._subscribe(None if initially else self._after)
        if initially:
            self._add_initial(send_initial_events)

    def stop(self) -> None:
        """End the stream; a waiting reader returns at once."""
        self._stopped = True
        self._subscription.wake()
        self._close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchEvent:
        self._start_clocks()
        while not self._ready:
            if self._stopped:
                self._close()
                raise StopAsyncIteration
            await self._fill()
        return self._ready.popleft()

    def take_ready(self) -> list[WatchEvent]:
        """What can be read without waiting, so that a burst of events is sent in one piece."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def _subscribe(self, after: int | None) -> Subscription:
        try:
            return self._store.subscribe(self.kind, after)
        except CompactedError as error:
            raise expired(str(error)) from None

    def _add_initial(self, send_initial_events: bool) -> None:
        for entry in self._store.scan(self.kind, self._namespace):
            if self._sees(entry):
                self._ready.append(WatchEvent("ADDED", _line("ADDED", raw_as(self.kind, entry))))
        if send_initial_events and self._bookmarks:
            self._ready.append(self._bookmark({INITIAL_EVENTS_END: "true"}))

    def _start_clocks(self) -> None:
        if self._next_bookmark == 0.0:
            now = asyncio.get_running_loop().time()
            self._next_bookmark = now + BOOKMARK_SECONDS
            if self._timeout_seconds is not None:
                self._deadline = now + self._timeout_seconds

    async def _fill(self) -> None:
        self._read_changes()
        if self._ready:
            return
        now = asyncio.get_running_loop().time()
        ended = self._deadline is not None and now >= self._deadline
        if self._bookmarks and (ended or now >= self._next_bookmark):
            self._ready.append(self._bookmark())
            self._next_bookmark = now + BOOKMARK_SECONDS
        if ended:
            self._stopped = True
        elif not self._ready:
            self._set_alarm()
            await self._subscription.wait()

    def _set_alarm(self) -> None:
        """Wake up for what is due next. One alarm serves many waits: it moves only when it has gone off."""
        due = [self._next_bookmark] if self._bookmarks else []
        if self._deadline is not None:
            due.append(self._deadline)
        loop = asyncio.get_running_loop()
        if due and (self._alarm is None or self._alarm.when() <= loop.time()):
            self._alarm = loop.call_at(min(due), _wake, weakref.ref(self._subscription))

    def _close(self) -> None:
        self._subscription.close()
        if self._alarm is not None:
            self._alarm.cancel()

    def _read_changes(self) -> None:
        try:
            changes = self._subscription.read()
        except CompactedError as error:
            raise expired(str(error)) from None
        for change in changes:
            event_type = self._event_type(change)
            if event_type is not None and (self._after is None or change.revision > self._after):
                self._ready.append(_event(self.kind, event_type, change))

    def _event_type(self, change: Change) -> EventType | None:
        was_seen = change.previous is not None and self._sees(change.previous)
        is_seen = not change.deleted and self._sees(change.entry)
        if is_seen:
            return "MODIFIED" if was_seen else "ADDED"
        return "DELETED" if was_seen else None

    def _sees(self, entry: Entry) -> bool:
        if self._namespace is not None and entry.key[0] != self._namespace:
            return False
        return self._matches is None or self._matches(entry.view)

    def _bookmark(self, annotations: dict[str, str] | None = None) -> WatchEvent:
        metadata: dict[str, Any] = {"resourceVersion": str(self._store.revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        body = {"kind": self.kind.name, "apiVersion": self.kind.api_version, "metadata": metadata}
        return WatchEvent("BOOKMARK", _line("BOOKMARK", json.dumps(body, separators=(",", ":")).encode()))
