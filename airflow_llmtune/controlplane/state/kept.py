"""All that a control plane keeps: nothing beyond its own end, or everything in its state directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.clock import utc_now
from airflow_llmtune.controlplane.db_manager import NoReportJournal, ReportJournal
from airflow_llmtune.controlplane.journal import Journal, NoJournal
from airflow_llmtune.controlplane.state.database import Database
from airflow_llmtune.controlplane.state.directory import locked
from airflow_llmtune.controlplane.state.identity import Identity, keep_identity, kept_identity
from airflow_llmtune.controlplane.state.journals import SqliteJournal, SqliteReportJournal

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.store import Store


class State:
    """Of a control plane that leaves nothing."""

    def __init__(
        self, identity: Identity, objects: Journal | None = None, reports: ReportJournal | None = None
    ) -> None:
        self.identity = identity
        self.objects = objects or NoJournal()
        self.reports = reports or NoReportJournal()

    def remember_ports(self, port: int, gateway_port: int) -> None:
        self.identity = replace(self.identity, port=port, gateway_port=gateway_port)

    def remember_token(self, token: str) -> None:
        self.identity = replace(self.identity, token=token)

    async def maintain(self, store: Store) -> None:  # noqa: ARG002  one signature for both
        """Until cancelled."""
        await asyncio.Event().wait()


class DurableState(State):
    """Of one that goes on where the last one in its directory ended."""

    def __init__(self, folder: Path, database: Database, identity: Identity) -> None:
        super().__init__(identity, SqliteJournal(database), SqliteReportJournal(database))
        self._folder = folder
        self._database = database

    def remember_ports(self, port: int, gateway_port: int) -> None:
        super().remember_ports(port, gateway_port)
        keep_identity(self._folder, self.identity)

    def remember_token(self, token: str) -> None:
        super().remember_token(token)
        keep_identity(self._folder, self.identity)

    async def maintain(self, store: Store) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._database.checkpoint_when_due())
            group.create_task(self._resync_after_refusals(store))

    async def _resync_after_refusals(self, store: Store) -> None:
        """Controllers and kubelet could not write down what they saw while the disk was full: let them look again."""
        while True:
            await self._database.writable_again()
            store.resync()


@contextlib.contextmanager
def state_of(folder: Path | None, host: str, fresh: Identity) -> Iterator[State]:
    """Held until the block ends; raises ``StateError`` when the folder cannot be used. ``fresh`` is for a new one."""
    if folder is None:
        yield State(fresh)
        return
    with locked(folder), contextlib.closing(Database(folder)) as database:
        yield DurableState(folder, database, kept_identity(folder, host, utc_now()) or fresh)
