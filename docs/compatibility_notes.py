"""Reads ``compatibility.txt`` and sees to it that its lines and the code agree. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

STATUSES = ("supported", "differing", "refused")
# These have sections of their own; lines of any other area go into the table of differences.
SECTIONS = ("kind", "request", "field", "trial kind", "algorithm", "collector", "condition")


class NotesError(Exception):
    """The notes are malformed, or say something that the code does not."""


@dataclass(frozen=True)
class Note:
    area: str
    what: str
    status: str
    why: str


@dataclass
class Notes:
    lines: Sequence[Note]
    _used: set[Note] = field(default_factory=set)

    def all(self, area: str) -> list[Note]:
        found = [note for note in self.lines if note.area == area]
        self._used.update(found)
        return found

    def one(self, area: str, what: str) -> Note:
        """What is said of one thing that is served; every such thing must be described."""
        found = [note for note in self.lines if (note.area, note.what) == (area, what)]
        if len(found) != 1:
            raise NotesError(f"{area} {what} needs exactly one line, there are {len(found)}")
        self._used.update(found)
        return found[0]

    def rows(self, area: str, *, code: bool = False) -> list[list[str]]:
        return [[f"`{note.what}`" if code else note.what, note.status, note.why] for note in self.all(area)]

    def others(self) -> list[Note]:
        found = [note for note in self.lines if note.area not in SECTIONS]
        self._used.update(found)
        return found

    def check_names(self, area: str, known: Iterable[str]) -> None:
        """A line must be about something that is there."""
        names = set(known)
        for note in self.lines:
            if note.area == area and note.what not in names:
                raise NotesError(f"{area} {note.what}: the control plane knows none of this name")

    def check_all_used(self) -> None:
        for note in self.lines:
            if note not in self._used:
                raise NotesError(f"{note.area} {note.what}: no section takes this line")


def read_notes(text: str) -> Notes:
    notes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split(" | ", 3)]
        if len(cells) != 4:
            raise NotesError(f"line {number} is not `area | what | status | why`: {line}")
        note = Note(*cells)
        if note.status not in STATUSES:
            raise NotesError(f"line {number}: status {note.status!r} is none of {', '.join(STATUSES)}")
        notes.append(note)
    return Notes(notes)
