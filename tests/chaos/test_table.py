"""The table of ``make chaos``: what a row says, and how its runs move on."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.cases import KILLS
from tests.chaos.seen import Row, Seen, table

CASE = KILLS[0]
EXPECTED = Seen.expected_of(CASE)


def cells_of(page: str) -> list[str]:
    line = page.splitlines()[-1]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_case_that_went_as_expected_shows_its_seconds() -> None:
    page = table([Row(CASE.name, EXPECTED, EXPECTED, 12.34)], "")
    assert cells_of(page) == [CASE.name, "success; 1 Experiment (Succeeded); 1 result", "as expected", "12.3", "", ""]


def test_a_case_that_did_not_shows_what_was_seen() -> None:
    seen = replace(EXPECTED, created=2, left=("Running", "Succeeded"), orphans=("tune-2",), processes=1)
    page = table([Row(CASE.name, EXPECTED, seen, 5.0)], "")
    told = "success; 2 Experiments (Running, Succeeded); 1 result; left running: tune-2; left: 1 process"
    assert cells_of(page)[2:4] == [told, "5.0, **failed**"]


def test_a_case_that_the_harness_could_not_play_is_no_success() -> None:
    assert cells_of(table([Row(CASE.name, EXPECTED, None, 0.0)], ""))[2:4] == ["the harness failed", "0.0, **failed**"]


def test_the_runs_move_on_and_the_fourth_falls_out() -> None:
    page = ""
    for seconds in (1.0, 2.0, 3.0, 4.0):
        page = table([Row(CASE.name, EXPECTED, EXPECTED, seconds)], page)
    assert cells_of(page)[3:] == ["4.0", "3.0", "2.0"]
