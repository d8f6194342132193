"""What the scripts that build a tiny model with its data have in common."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Rows = list[dict[str, str]]


@contextmanager
def quietly() -> Iterator[None]:
    """Around what tests build with libraries that deprecate each other's options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def split(rows: Rows) -> tuple[Rows, Rows]:
    """Return the rows to train on, and every fifth one, to evaluate."""
    held_out = rows[::5]
    return [row for row in rows if row not in held_out], held_out


def write_jsonl(file: Path, content: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return file


def write_data(folder: Path, rows: Rows) -> Path:
    for name, part in zip(("train", "eval"), split(rows), strict=True):
        write_jsonl(folder / f"{name}.jsonl", part)
    return folder


def build(model: Callable[[Path], Path], data: Callable[[Path], Path]) -> None:
    """Build into the folders of the command line; the second may be missing."""
    for make, folder in zip((model, data), sys.argv[1:], strict=False):
        make(Path(folder))
