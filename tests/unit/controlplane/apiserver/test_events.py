"""Events that outlive the process that recorded them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.apiserver.events import EventLog
from airflow_llmtune.controlplane.apiserver.kinds import EVENT
from airflow_llmtune.controlplane.state.database import Database
from airflow_llmtune.controlplane.state.journals import SqliteJournal
from airflow_llmtune.controlplane.store import Store

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def record(events: EventLog, message: str, minutes: int) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}
    events.record(pod, "Normal", "Odd", message, {"uid": message}, NOW + timedelta(minutes=minutes))


def counts(store: Store) -> dict[str, Any]:
    return {entry.view["message"]: entry.view["count"] for entry in store.scan(EVENT)}


def test_events_of_an_earlier_process_are_counted_on_and_forgotten_in_time(tmp_path: Path) -> None:
    with closing(Database(tmp_path)) as database:
        store = Store(journal=SqliteJournal(database))
        events = EventLog(store)
        record(events, "goes", 0)
        record(events, "stays", 10)
        record(events, "is broken", 20)
        broken = next(entry for entry in store.scan(EVENT) if entry.view["message"] == "is broken")
        store.update(EVENT, *broken.key, {**broken.view, "lastTimestamp": "soon"})
    with closing(Database(tmp_path)) as database:
        store = Store(journal=SqliteJournal(database))
        events = EventLog(store)
        record(events, "stays", 40)
        assert counts(store) == {"goes": 1, "stays": 2, "is broken": 1}
        record(events, "new", 61)
        assert counts(store) == {"stays": 2, "is broken": 1, "new": 1}
