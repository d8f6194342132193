"""Observation logs, in memory and on a database alike, there also when another process reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.db_manager import YEAR_ONE, DBManager, MetricLog
from airflow_llmtune.controlplane.state.database import Database
from airflow_llmtune.controlplane.state.journals import SqliteReportJournal

Reread = Callable[[DBManager], DBManager]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path)) as database:
        yield database


@pytest.fixture(params=["memory", "database", "reread"])
def managers(request: pytest.FixtureRequest, database: Database) -> tuple[DBManager, Reread]:
    """One to report to, and what gives the one to ask then: the same, or one that has only the database."""
    if request.param == "memory":
        return DBManager(), lambda manager: manager
    journal = SqliteReportJournal(database)
    if request.param == "database":
        return DBManager(journal), lambda manager: manager
    return DBManager(journal), lambda manager: DBManager(journal)


def at(second: float, name: str = "loss", value: str = "1") -> MetricLog:
    return MetricLog(f"2026-11-22T09:00:{second:09.6f}Z", name, value)


def test_entries_come_by_time_and_equal_times_as_they_were_reported(managers: tuple[DBManager, Reread]) -> None:
    manager, reread = managers
    manager.report_observation_log("t", [at(5), at(1, "acc", "a"), MetricLog("", "loss", "dropped")])
    manager.report_observation_log("t", [at(3), at(1, "acc", "b")])
    manager.report_observation_log("t", [MetricLog("2026-11-22T10:00:04+01:00", "loss", "elsewhere")])
    manager.report_observation_log("t", [MetricLog(YEAR_ONE, "loss", "first")])
    manager.report_observation_log("other", [at(2)])
    asked = reread(manager)
    assert [entry.value for entry in asked.get_observation_log("t")] == ["first", "a", "b", "1", "elsewhere", "1"]
    assert [entry.value for entry in asked.get_observation_log("t", "acc")] == ["a", "b"]
    assert asked.get_observation_log("nobody") == []


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        ("", "", [1, 2, 2.5, 3]),
        ("2026-11-22T09:00:02Z", "", [2, 2.5, 3]),
        ("", "2026-11-22T09:00:02Z", [1, 2]),
        ("2026-11-22T10:00:02+01:00", "2026-11-22T09:00:02.500000Z", [2, 2.5]),
        ("2026-11-22T09:00:04Z", "", []),
        ("2026-11-22T09:00:03Z", "2026-11-22T09:00:01Z", []),
    ],
)
def test_a_period_has_both_its_ends(
    managers: tuple[DBManager, Reread], start: str, end: str, found: list[float]
) -> None:
    manager, reread = managers
    manager.report_observation_log("t", [at(second) for second in (3, 1, 2.5, 2)])
    assert reread(manager).get_observation_log("t", "loss", start, end) == [at(second) for second in found]


def test_deleted_logs_are_gone_and_a_trial_of_the_same_name_starts_empty(managers: tuple[DBManager, Reread]) -> None:
    manager, reread = managers
    manager.report_observation_log("t", [at(1)])
    manager.report_observation_log("kept", [at(1)])
    manager.delete_observation_log("t")
    manager.delete_observation_log("never there")
    assert reread(manager).get_observation_log("t") == []
    manager.report_observation_log("t", [at(2)])
    assert reread(manager).get_observation_log("t") == [at(2)]
    assert reread(manager).get_observation_log("kept") == [at(1)]


def test_a_report_with_a_bad_time_stamp_is_refused_as_a_whole(managers: tuple[DBManager, Reread]) -> None:
    manager, reread = managers
    with pytest.raises(ValueError, match="not an RFC 3339 time: 'yesterday'"):
        manager.report_observation_log("t", [at(1), MetricLog("yesterday", "loss", "1")])
    assert reread(manager).get_observation_log("t") == []


def test_values_are_kept_as_they_were_written(managers: tuple[DBManager, Reread]) -> None:
    manager, reread = managers
    odd = [at(1, "loß", 'a "b"\n\t\x00'), at(2, "", ""), at(3, "loss", "1e-05")]
    manager.report_observation_log("t", odd)
    assert reread(manager).get_observation_log("t") == odd


def test_a_trial_that_reports_without_end_loses_its_earliest_entries(managers: tuple[DBManager, Reread]) -> None:
    manager, reread = managers
    manager.report_observation_log("t", [at(0, value=str(number)) for number in range(99_999)])
    manager.report_observation_log("t", [at(1), at(2), at(3)])
    entries = reread(manager).get_observation_log("t")
    assert (len(entries), entries[0].value, entries[-1]) == (100_000, "2", at(3))


def test_what_is_no_longer_kept_does_not_stay_on_the_disk(database: Database) -> None:
    manager = DBManager(SqliteReportJournal(database))
    for start in range(0, 250_000, 2_500):
        manager.report_observation_log("t", [at(0, value=str(start + index)) for index in range(2_500)])
    manager.report_observation_log("other", [at(1)])
    manager = DBManager(SqliteReportJournal(database))
    manager.report_observation_log("t", [at(1)])
    assert database.read("SELECT count(*) FROM observation_logs WHERE trial = 't'") == [(41,)]
    entries = DBManager(SqliteReportJournal(database)).get_observation_log("t")
    assert (len(entries), entries[0].value, entries[-1]) == (100_000, "150001", at(1))


def test_asking_for_a_long_log_sorts_and_parses_nothing(database: Database) -> None:
    manager = DBManager(SqliteReportJournal(database))
    manager.report_observation_log("t", [at(index / 1000) for index in range(50_000, 0, -1)])
    begin = time.process_time()
    for _ in range(100):
        manager.get_observation_log("t", "loss", "2026-11-22T09:00:40Z", "2026-11-22T09:00:40.1Z")
    # Parsing 50,000 time stamps once takes longer than all of these together.
    assert time.process_time() - begin < 0.1


def test_what_cannot_be_written_down_is_refused_and_not_remembered(database: Database) -> None:
    manager = DBManager(SqliteReportJournal(database))
    manager.report_observation_log("t", [at(1)])
    database.read("PRAGMA max_page_count = 8")
    with pytest.raises(ApiError, match="disk is full"):
        manager.report_observation_log("t", [at(2, value="x" * 100_000)])
    assert manager.get_observation_log("t") == [at(1)]
