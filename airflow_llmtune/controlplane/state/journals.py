"""What the store and the DB manager write to the database, and read back at a start."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_llmtune.controlplane.state.database import Database, Statement

_ADD = "INSERT INTO objects (revision, resource, namespace, name, body) VALUES (?, ?, ?, ?, ?)"
_REPLACE = "UPDATE objects SET revision = ?, body = ? WHERE revision = ?"
_REMOVE = "DELETE FROM objects WHERE revision = ?"
_COUNT = (
    "INSERT INTO deletions VALUES (1, ?) ON CONFLICT (only_row) DO UPDATE SET last_revision = excluded.last_revision"
)
_REVISION = (
    "SELECT max((SELECT ifnull(max(revision), 0) FROM objects), (SELECT ifnull(max(last_revision), 0) FROM deletions))"
)

_REMOVE_FIRST = (
    "DELETE FROM observation_logs WHERE rowid IN "
    "(SELECT rowid FROM observation_logs WHERE trial = ? ORDER BY rowid LIMIT ?)"
)


class SqliteJournal:
    """The rows' key is the revision: a create appends, and the counter is the largest one there ever was."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def revision(self) -> int:
        return int(self._database.read(_REVISION)[0][0])

    def objects(self) -> Iterator[tuple[str, str, str, int, bytes]]:
        """Resource, namespace, name, revision and text of each."""
        yield from self._database.read("SELECT resource, namespace, name, revision, body FROM objects")

    def add(self, resource: str, key: tuple[str, str], revision: int, body: bytes) -> None:
        self._database.write((_ADD, (revision, resource, *key, body)))

    def replace(self, previous: int, revision: int, body: bytes) -> None:
        self._database.write((_REPLACE, (revision, body, previous)))

    def remove(self, previous: int, revision: int) -> None:
        """The object goes, the number of its deletion stays counted."""
        self._database.write((_REMOVE, (previous,)), (_COUNT, (revision,)))


class SqliteReportJournal:
    """The reports to the DB manager, each as one text."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reports(self, trial: str) -> list[str]:
        rows = self._database.read("SELECT report FROM observation_logs WHERE trial = ? ORDER BY rowid", trial)
        return [report for (report,) in rows]

    def add(self, trial: str, report: str, outdated: int) -> None:
        statements: list[Statement] = [("INSERT INTO observation_logs VALUES (?, ?)", (trial, report))]
        if outdated:
            statements.append((_REMOVE_FIRST, (trial, outdated)))
        self._database.write(*statements)

    def remove(self, trial: str) -> None:
        self._database.write(("DELETE FROM observation_logs WHERE trial = ?", (trial,)))
