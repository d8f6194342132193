"""The rows of one split once they are checked: on disk, in the data's order, with what is wrong with the others."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow

from llmtune_trainer.data.encoding import Row
from llmtune_trainer.data.files import Raw
from llmtune_trainer.data.formats import Format, MalformedError, shortened

SCHEMA = pyarrow.schema([("row", pyarrow.binary()), ("identity", pyarrow.int64()), ("problem", pyarrow.string())])
BATCH = 512


class Malformed(NamedTuple):
    rows: int
    first: str | None  # where it stands, what is wrong with it and how it begins


class Rows:
    """Equal rows have equal identities. A malformed row keeps its number, so that slices count it."""

    def __init__(self, file: Path) -> None:
        with pyarrow.memory_map(str(file)) as mapped:
            self.table = pyarrow.ipc.open_stream(mapped).read_all()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def good(self, among: range) -> Sequence[int]:
        mask = self.table["problem"].slice(among.start, len(among)).is_null().to_numpy()
        return _eight_bytes_each(mask.nonzero()[0] + among.start)

    def malformed(self, among: range) -> Malformed:
        problems = self.table["problem"].slice(among.start, len(among)).drop_null()
        return Malformed(len(problems), problems[0].as_py() if len(problems) else None)

    def identities(self, numbers: Sequence[int]) -> Sequence[int]:
        return _eight_bytes_each(self.table["identity"].to_numpy()[numbers])

    def take(self, numbers: Sequence[int]) -> Iterator[Row]:
        """Return rows by their ascending numbers."""
        start, position = 0, 0
        for batch in self.table.to_batches():
            stop = start + batch.num_rows
            rows = batch.column("row")
            while position < len(numbers) and numbers[position] < stop:
                yield json.loads(rows[numbers[position] - start].as_py())
                position += 1
            start = stop


class Chosen(NamedTuple):
    """Rows of a split by their numbers, and what is malformed in the part that they are of."""

    split: str
    rows: Rows
    numbers: Sequence[int]
    malformed: Malformed


def _eight_bytes_each(numbers: Any) -> Sequence[int]:
    """Return a tenth of what a list of as many takes."""
    return array("q", numbers.astype("int64").tobytes())


def collect(raw: Iterable[Raw], row_format: Format, file: Path) -> Rows:
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, SCHEMA) as writer:
        batch: list[dict[str, Any]] = []
        for found in raw:
            batch.append(_checked(found, row_format))
            if len(batch) == BATCH:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, SCHEMA))
                batch = []
        writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, SCHEMA))
    return Rows(file)


def _checked(found: Raw, row_format: Format) -> dict[str, Any]:
    problem = found.problem
    if problem is None and not isinstance(found.row, dict):
        problem = "is no object with named fields"
    if problem is None:
        try:
            content = json.dumps(row_format.read(found.row), ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            problem = "has half of a character (a lone surrogate)"
        except MalformedError as error:
            problem = str(error)
        else:
            identity = hashlib.blake2b(content, digest_size=8).digest()
            return {"row": content, "identity": int.from_bytes(identity, signed=True)}
    return {"problem": f"{found.place} {problem}: {shortened(found.row)}"}
