"""What the harness has seen of a case, and the table of all of them: expected, seen, seconds, of the last runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from tests.chaos.cases import Case

RUNS = 3
HEADER = ("case", "expected", "seen", "seconds", "the run before", "the one before that")
TITLE = """\
# The chaos matrix

What `make chaos` did to a real Airflow (api-server, scheduler, dag-processor and {triggerers} on {database}) and a
control plane, all of them processes of one machine, and what became of the runs. It writes this page; the cases are
defined in `tests/chaos`. It also holds of each case, unless "seen" says otherwise, that nothing of the run was left
running: no Experiment, Trial, Job or pod that had not ended, and no process of a trial. Seconds are counted from the
fault to the end of the run; what is stopped (SIGSTOP) goes on after 40 seconds.
"""


@dataclass(frozen=True)
class Seen:
    """
    What became of a run, in the terms of a :class:`Case`, and what must not be left of it.

    :param orphans: its objects that have not ended.
    :param processes: of its trials.
    """

    state: str
    created: int
    left: tuple[str, ...]
    results: int
    orphans: tuple[str, ...] = ()
    processes: int = 0

    @classmethod
    def expected_of(cls, case: Case) -> Self:
        return cls(case.state, case.created, case.left, case.results)

    def __str__(self) -> str:
        left = ", ".join(self.left) or "none left"
        parts = [self.state, f"{_count(self.created, 'Experiment')} ({left})", _count(self.results, "result")]
        parts += [f"left running: {', '.join(self.orphans)}"] if self.orphans else []
        parts += [f"left: {_count(self.processes, 'process', 'processes')}"] if self.processes else []
        return "; ".join(parts)


class Row(NamedTuple):
    """
    One case of one run.

    :param seen: None when the harness itself failed.
    """

    name: str
    expected: Seen
    seen: Seen | None
    seconds: float

    @property
    def is_green(self) -> bool:
        return self.seen == self.expected

    @property
    def cell(self) -> str:
        return f"{self.seconds:.1f}" if self.is_green else f"{self.seconds:.1f}, **failed**"


def table(rows: Iterable[Row], page: str, *, has_postgres: bool = True) -> str:
    """
    Return the page with a new run.

    :param page: as it was; its runs move on by one column.
    :param has_postgres: what it ran on; without PostgreSQL it is SQLite, and one triggerer.
    """
    earlier = {cells[0]: cells[3:] for cells in map(_cells, page.splitlines()) if len(cells) == len(HEADER)}
    site = ("two triggerers", "PostgreSQL") if has_postgres else ("one triggerer", "SQLite")
    lines = [TITLE.format(triggerers=site[0], database=site[1]), _line(HEADER), _line(["---"] * len(HEADER))]
    for row in rows:
        runs = [row.cell, *earlier.get(row.name, ())][:RUNS]
        seen = "as expected" if row.is_green else str(row.seen or "the harness failed")
        lines.append(_line([row.name, str(row.expected), seen, *runs, *[""] * (RUNS - len(runs))]))
    return "\n".join([*lines, ""])


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
