"""Raw data files, read row by row: which there are, which split each belongs to, and what stands in them.

A row that cannot be read is given with its problem and the reading goes on; a file that cannot be read is an error.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from llmtune_trainer.data.configurations import configured_files
from llmtune_trainer.errors import BadInputError

EVAL_SPLITS = ("validation", "eval", "test", "valid", "val", "dev", "evaluation")
SHARD = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?$")
HUB_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
# What libraries write beside the data.
NO_DATA = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
LONGEST_FIELD = 2**31 - 1
NO_SPACE = re.compile(r"[^ \t\r\n]|\Z")
BEHIND_NUMBERS = tuple(",]} \t\r\n")
LONGEST_MARK = 1000  # longer than any number, word or blank between two values
BATCH = 512
CHUNK = 1 << 20


class Raw(NamedTuple):
    place: str  # "train.jsonl, line 3"
    row: Any
    problem: str | None = None


def find_splits(location: Path, config: str | None = None, *, name: str = "") -> dict[str, list[Path]]:
    """Return the files of each split; a split that save_to_disk wrote counts as one file. ``name``: for errors."""
    name = name or str(location)
    if location.is_file():
        return {"train": [location]}
    if (location / "dataset_dict.json").is_file():
        names = json.loads((location / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return {name: [location / name] for name in names}
    if _is_saved(location):
        return {"train": [location]}
    stated = configured_files(location, config, name)
    named = [(None, file) for file in _data_files(location)] if stated is None else stated
    files = [(split, file) for split, file in named if file.is_dir() or _suffix(file) in READERS]
    if not files:
        raise BadInputError(
            f"{name} holds no data file. Fix: put {', '.join(READERS)} files there, such as train.jsonl and eval.jsonl."
        )
    splits: dict[str, list[Path]] = {}
    for split, file in files:
        alone = "train" if len(files) == 1 else _split_of(file.relative_to(location), is_file=file.is_file())
        splits.setdefault(split or alone, []).append(file)
    return splits


def read_rows(files: Sequence[Path]) -> Iterator[Raw]:
    for file in files:
        reader = _read_saved if file.is_dir() else READERS.get(_suffix(file))
        if reader is None:
            raise BadInputError(f"{file} is no data file that can be read. Fix: give a {', '.join(READERS)} file.")
        try:
            yield from reader(file)
        except UnicodeDecodeError as error:
            raise BadInputError(f"{file} is not UTF-8 (byte {error.start}). Fix: convert it.") from error
        except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadInputError(f"{file} cannot be read: {error}. Fix: write it again.") from error


def class_names(file: Path) -> dict[str, list[str]]:
    """Return the names of the classes by column, where the file says them (`datasets` writes them into its files)."""
    if file.is_dir():
        return _classes_in(_saved(file).features.arrow_schema)
    if _suffix(file) == ".parquet":
        from pyarrow import parquet

        return _classes_in(_readable(file, lambda: parquet.read_schema(file)))
    return _classes_in(_readable(file, lambda: _open_arrow(file).schema)) if _suffix(file) == ".arrow" else {}


# --- which files --------------------------------------------------------------------------------------------


def _data_files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from [entry] if _is_saved(entry) else _data_files(entry)
        elif _suffix(entry) in READERS and entry.name not in NO_DATA:
            yield entry


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _suffix(file: Path) -> str:
    return "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix


def _split_of(file: Path, *, is_file: bool) -> str:
    """Return ``train`` for train.jsonl, data/train-00000-of-00002.parquet (the Hub's way) and train/part-1.jsonl."""
    stem = file.name.removesuffix(_suffix(file)) if is_file else file.name
    name = SHARD.sub("", stem)
    named = len(file.parts) == 1 or name in ("train", *EVAL_SPLITS) or HUB_SHARD.search(stem) or not is_file
    return name if named else file.parts[0]


# --- lines of text ------------------------------------------------------------------------------------------


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _read_jsonl(file: Path) -> Iterator[Raw]:
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if content := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield _parsed(content, f"{file.name}, line {number}")


def _parsed(line: bytes, place: str) -> Raw:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Raw(place, line.decode(errors="replace"), f"is not UTF-8 (byte {error.start})")
    try:
        return Raw(place, json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        return Raw(place, text, f"is no valid JSON ({reason}; each line is one JSON object)")


def _read_json(file: Path) -> Iterator[Raw]:
    with _opened(file) as content:
        start = content.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    yield from _read_array(file) if start.startswith(b"[") else _read_jsonl(file)


def _read_array(file: Path) -> Iterator[Raw]:
    """Read the elements of one JSON array, never the whole of it."""
    with _text(file) as content:
        elements = _Elements(content)
        elements.skip("[")
        if elements.skip("]"):
            return
        number = 0
        while number == 0 or elements.skip(","):
            number += 1
            try:
                yield Raw(f"{file.name}, row {number}", elements.take())
            except json.JSONDecodeError as error:
                raise _no_json(file, f"{error.msg} in row {number}") from error
        if not elements.skip("]"):
            raise _no_json(file, f"Expecting ',' or ']' after row {number}")


def _no_json(file: Path, problem: str) -> BadInputError:
    return BadInputError(f"{file.name} is no valid JSON: {problem}. Fix: correct the file.")


class _Elements:
    """The values of a JSON text, decoded one after the other from as much of the text as each needs."""

    def __init__(self, content: IO[str]) -> None:
        self.content = content
        self.buffer = ""
        self.position = 0

    def skip(self, mark: str) -> bool:
        self._skip_space()
        found = self.buffer.startswith(mark, self.position)
        self.position += found
        return found

    def take(self) -> Any:
        self._skip_space()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos + LONGEST_MARK > len(self.buffer)
                if not cut_off or not self._read_on():
                    raise
                continue
            # A number may go on where the buffer does not.
            whole = not isinstance(value, int | float) or self.buffer[end : end + 1] in BEHIND_NUMBERS
            if whole or not self._read_on():
                self.position = end
                return value

    def _skip_space(self) -> None:
        while True:
            self.position = NO_SPACE.search(self.buffer, self.position).start()  # type: ignore[union-attr]
            if self.position < len(self.buffer) or not self._read_on():
                return

    def _read_on(self) -> bool:
        kept = self.buffer[self.position :]
        more = self.content.read(max(CHUNK, len(kept)))
        self.buffer, self.position = kept + more, 0
        return bool(more)


def _text(file: Path) -> Any:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _read_csv(file: Path) -> Iterator[Raw]:
    csv.field_size_limit(LONGEST_FIELD)
    with _text(file) as lines:
        rows = csv.DictReader(lines)
        for number, row in enumerate(rows, 1):
            problem = None
            if None in row:
                heading = ", ".join(rows.fieldnames or ())
                problem = f"has more columns than the heading ({heading}; put a field with a comma in double quotes)"
            yield Raw(f"{file.name}, row {number}", row, problem)


# --- columns ------------------------------------------------------------------------------------------------


def _read_parquet(file: Path) -> Iterator[Raw]:
    # A tenth of a second that other formats do not pay.
    from pyarrow import parquet

    opened = _readable(file, lambda: parquet.ParquetFile(file))
    yield from _of_batches(file, opened.schema_arrow, opened.iter_batches(BATCH))


def _read_arrow(file: Path) -> Iterator[Raw]:
    opened = _readable(file, lambda: _open_arrow(file))
    if hasattr(opened, "num_record_batches"):
        batches: Iterable[Any] = (opened.get_batch(number) for number in range(opened.num_record_batches))
    else:
        batches = opened
    yield from _of_batches(file, opened.schema, batches)


def _open_arrow(file: Path) -> Any:
    """Return a reader of either of Arrow's two formats: the file, and the stream that `datasets` writes."""
    import pyarrow

    with file.open("rb") as content:
        of_file = content.read(6) == b"ARROW1"
    mapped = pyarrow.memory_map(str(file))
    return pyarrow.ipc.open_file(mapped) if of_file else pyarrow.ipc.open_stream(mapped)


def _read_saved(folder: Path) -> Iterator[Raw]:
    saved = _saved(folder)
    tables = saved.with_format("arrow").iter(BATCH)
    yield from _of_batches(folder, saved.features.arrow_schema, tables)


def _saved(folder: Path) -> Any:
    # Half a second that plain files do not pay.
    from datasets import load_from_disk

    return _readable(folder, lambda: load_from_disk(str(folder)))


def _of_batches(file: Path, schema: Any, batches: Iterable[Any]) -> Iterator[Raw]:
    classes = _classes_in(schema)
    rest = iter(batches)
    number = 0
    while (batch := _readable(file, lambda: next(rest, None))) is not None:
        for start in range(0, batch.num_rows, BATCH):
            for row in batch.slice(start, BATCH).to_pylist():
                number += 1
                for column, names in classes.items():
                    # -1 is how `datasets` says that a class is not known.
                    row[column] = None if row[column] in (None, -1) else names[row[column]]
                yield Raw(f"{file.name}, row {number}", row)


def _readable(file: Path, read: Callable[[], Any]) -> Any:
    import pyarrow

    try:
        return read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        kind = "save_to_disk tree" if file.is_dir() else f"{file.suffix.removeprefix('.')} file"
        raise BadInputError(f"{file.name} is no readable {kind}: {reason} Fix: write it again.") from error


def _classes_in(schema: Any) -> dict[str, list[str]]:
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    columns = told.get("info", {}).get("features") or {}
    return {
        name: column["names"]
        for name, column in columns.items()
        if isinstance(column, dict) and column.get("_type") == "ClassLabel" and column.get("names")
    }


READERS: dict[str, Callable[[Path], Iterator[Raw]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".jsonl.gz": _read_jsonl,
    ".json.gz": _read_json,
    ".csv.gz": _read_csv,
}
