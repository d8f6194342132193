"""A file in lines, of which a long one comes in several pieces, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    text: str
    starts_line: bool


def pieces(file: BinaryIO) -> Iterator[Piece]:
    """Only a newline ends a line, as in Katib: progress bars return the carriage and can write megabytes of them."""
    starts_line, rest = True, b""
    while raw := file.readline(PIECE_BYTES):
        raw, rest = rest + raw, b""
        ends_line = raw.endswith(b"\n")
        if not ends_line and len(raw) >= PIECE_BYTES:
            raw, rest = _cut(raw)
        yield Piece(raw.removesuffix(b"\n").decode(errors="replace"), starts_line)
        starts_line = ends_line
    if rest:
        yield Piece(rest.decode(errors="replace"), starts_line)


def _cut(raw: bytes) -> tuple[bytes, bytes]:
    """Behind the last place where no match can lie across, unless that leaves too much."""
    place = max(raw.rfind(b"\r"), raw.rfind(b" "))
    if place < PIECE_BYTES // 2:
        return raw, b""
    return raw[: place + 1], raw[place + 1 :]


def whole_lines(file: BinaryIO) -> Iterator[str]:
    for raw in file:
        yield raw.removesuffix(b"\n").decode(errors="replace")
