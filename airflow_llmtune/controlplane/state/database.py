"""The SQLite file: opened with its checks, written in transactions, and its failures told as the API tells errors.

A write is in the operating system's hands when it returns, so that it survives any end of this process, and costs
some twenty microseconds: with a write-ahead log and ``synchronous=NORMAL`` the disk is waited for only at a
checkpoint, and those are made in a thread. A power cut may undo the last writes, never half of one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, insufficient_storage, internal_error
from airflow_llmtune.controlplane.state.errors import StateError

FILE = "state.sqlite"

_APPLICATION_ID = 0x6C6C6D74
_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE objects (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE deletions (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), last_revision INTEGER NOT NULL);
CREATE TABLE observation_logs (trial TEXT NOT NULL, report TEXT NOT NULL);
CREATE INDEX observation_logs_trial ON observation_logs (trial);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_CHECKPOINT_BYTES = 4 * 1024 * 1024
_LARGEST_LOG_PAGES = 16_000
"""Where SQLite makes a checkpoint itself, during a write: only when those of the thread never catch up."""
_BYTES_PER_WRITE = 8 * 1024
"""What a write adds to the log besides its text, as whole pages are logged."""
_BUSY_SECONDS = 0.2
_RETRY_SECONDS = 1.0

Statement = tuple[str, tuple[int | str | bytes, ...]]

# A row that no Trial can have; there is never more than one, however often there was no room to take it away.
_PROBE: Statement = (
    "INSERT OR REPLACE INTO observation_logs (rowid, trial, report) VALUES (-1, '', zeroblob(?))",
    (256 * 1024,),
)
_END_OF_PROBE: Statement = ("DELETE FROM observation_logs WHERE rowid = -1", ())

log = logging.getLogger(__name__)


class Database:
    """Used by one thread, the loop's, but for the checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._folder = folder
        self._logged_bytes = 0
        self._checkpoint_is_due = asyncio.Event()
        self._refused = asyncio.Event()
        # Made before SQLite sees it, for the owner only; SQLite gives its own files beside it the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        self._connection = self._connect()
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._unusable(str(error)) from error
        except StateError:
            self._connection.close()
            raise

    def read(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error, "read") from error

    def write(self, *statements: Statement) -> None:
        """All of it or, with an ApiError, nothing."""
        try:
            with self._connection as connection:
                for sql, values in statements:
                    connection.execute(sql, values)
                    self._logged_bytes += _BYTES_PER_WRITE + sum(len(one) for one in values if not isinstance(one, int))
        except sqlite3.Error as error:
            if not self._refused.is_set():
                log.error("cannot write to %s: %s", self.path, error)
            self._refused.set()
            raise self._failure(error, "write to") from error
        if self._logged_bytes > _CHECKPOINT_BYTES:
            self._checkpoint_is_due.set()

    async def checkpoint_when_due(self) -> None:
        """Until cancelled: move what was logged into the file, in a thread, for it waits for the disk."""
        while True:
            await self._checkpoint_is_due.wait()
            self._checkpoint_is_due.clear()
            self._logged_bytes = 0
            try:
                await asyncio.to_thread(self._checkpoint)
            except sqlite3.Error as error:
                log.warning("cannot move the log of %s into it: %s", self.path, error)

    async def writable_again(self) -> None:
        """Returns when writes that were refused (a full disk) would be taken again."""
        await self._refused.wait()
        while True:
            await asyncio.sleep(_RETRY_SECONDS)
            if self._has_room():
                self._refused.clear()
                return

    def close(self) -> None:
        """The last connection moves the log into the file and removes it."""
        self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)

    def _prepare(self) -> None:
        connection = self._connection
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise self._unusable(problems[0])
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LARGEST_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_BYTES}")
        marks = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if marks == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            connection.executescript(_SCHEMA)
        elif marks != (_APPLICATION_ID, _VERSION):
            raise self._foreign(*marks)

    def _foreign(self, application_id: int, version: int) -> StateError:
        found = f"has schema version {version}" if application_id == _APPLICATION_ID else "is none of a control plane's"
        return StateError(
            f"{self.path} {found}, and this control plane reads version {_VERSION} only: start the release that wrote "
            "it, choose another state directory, or move the file away to start empty"
        )

    def _unusable(self, why: str) -> StateError:
        return StateError(
            f"cannot use {self.path}: {why}; if the disk is full, make room; if the file is damaged, put a copy of it "
            f"back, or move it and {self.path.name}-wal away to start empty"
        )

    def _failure(self, error: sqlite3.Error, verb: str) -> ApiError:
        name = getattr(error, "sqlite_errorname", "")
        message = f"the control plane cannot {verb} its state directory {self._folder}: {error}"
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            return insufficient_storage(f"{message}; nothing was changed, make room there and try again")
        return internal_error(message)

    def _checkpoint(self) -> None:
        connection = self._connect()
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()

    def _has_room(self) -> bool:
        try:
            self.write(_PROBE)
            self.write(_END_OF_PROBE)
        except ApiError:
            return False
        return True


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
