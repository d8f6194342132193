"""Collects what each case has shown, from all test processes, for the table of ``make chaos``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cases import KILLS, Case
from tests.chaos.postgres import has_programs
from tests.chaos.seen import Row, Seen, table

PROPERTY = "chaos"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-table", type=Path, metavar="PATH", help="write the table of all cases to this page")


@pytest.fixture
def tell(record_property: Callable[[str, Any], None]) -> Callable[[Case, Seen | None, float], None]:
    """Note what was seen of a case, and compare."""

    def note(case: Case, seen: Seen | None, seconds: float) -> None:
        expected = Seen.expected_of(case)
        shown = None if seen is None else asdict(seen)
        record_property(PROPERTY, {"name": case.name, "expected": asdict(expected), "seen": shown, "seconds": seconds})
        assert seen == expected

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = [row for reports in terminalreporter.stats.values() for report in reports for row in _rows(report)]
    page: Path | None = config.getoption("--chaos-table")
    # A process of xdist knows its own part only.
    if page is None or not rows or hasattr(config, "workerinput"):
        return
    earlier = page.read_text() if page.exists() else ""
    text = table(sorted(rows, key=_place), earlier, has_postgres=has_programs())
    page.write_text(text)
    terminalreporter.write(text)


def _place(row: Row) -> tuple[bool, str]:
    """The matrix comes first."""
    return row.name not in {kill.name for kill in KILLS}, row.name


def _rows(report: Any) -> list[Row]:
    told = dict(getattr(report, "user_properties", ())).get(PROPERTY) if getattr(report, "when", "") == "call" else None
    if told is None:
        return []
    seen = None if told["seen"] is None else _seen(told["seen"])
    return [Row(told["name"], _seen(told["expected"]), seen, told["seconds"])]


def _seen(told: dict[str, Any]) -> Seen:
    # What comes from another test process may have lists in place of tuples.
    return Seen(**{**told, "left": tuple(told["left"]), "orphans": tuple(told["orphans"])})
