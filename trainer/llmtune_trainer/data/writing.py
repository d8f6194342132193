"""Rows through an encoder into an Arrow file, a batch at a time, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow

from llmtune_trainer.data.encoding import Encoder, Row
from llmtune_trainer.data.formats import shortened
from llmtune_trainer.data.processes import encode_all
from llmtune_trainer.data.rows import Chosen
from llmtune_trainer.manifest import fingerprint_of

BATCH = 512
TOKENS = pyarrow.list_(pyarrow.int32())


@dataclass
class Written:
    rows: int = 0  # that gave an example
    tokens: int = 0
    dropped: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    malformed: int = 0
    first_malformed: str | None = None
    schema: Any = None


def write_examples(chosen: Chosen, encoder: Encoder, file: Path) -> Written:
    """Write the examples of rows, and how long each is; nothing at all where there is none."""
    told = Written()
    examples = _encoded(chosen, encoder, told)
    batch = list(islice(examples, BATCH))
    if not batch:
        return told
    told.schema = _schema_of(batch)
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, told.schema) as writer:
        while batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, told.schema))
            batch = list(islice(examples, BATCH))
    return told


def write_nothing(schema: Any, file: Path) -> None:
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema):
        pass


def fingerprint_in(file: Path) -> str:
    with pyarrow.memory_map(str(file)) as mapped:
        batches = iter(pyarrow.ipc.open_stream(mapped))
        return fingerprint_of(_as_the_loss_sees_it(row) for batch in batches for row in batch.to_pylist())


def _as_the_loss_sees_it(example: Row) -> tuple[Sequence[int], Sequence[int]]:
    if "chosen_ids" in example:
        chosen, rejected = (example["prompt_ids"] + example[name] for name in ("chosen_ids", "rejected_ids"))
        return chosen, rejected
    labels = example["labels"] if "labels" in example else example["label"]
    return example["input_ids"], [int(label) for label in labels] if isinstance(labels, list) else [labels]


def _encoded(chosen: Chosen, encoder: Encoder, told: Written) -> Iterator[Row]:
    encoded = encode_all(chosen.rows.take(chosen.numbers), encoder, len(chosen.numbers))
    for number, found in zip(chosen.numbers, encoded, strict=True):
        if found.problem is not None:
            told.malformed += 1
            told.first_malformed = told.first_malformed or _shown(chosen, number, found.problem)
            continue
        told.cut_rows += found.cut_tokens > 0
        told.cut_tokens += found.cut_tokens
        told.rows += bool(found.examples)
        told.dropped += not found.examples
        for example in found.examples:
            length = _length_of(example)
            told.tokens += length
            yield {**example, "length": length}


def _shown(chosen: Chosen, number: int, problem: str) -> str:
    row = next(chosen.rows.take([number]))
    return f"{chosen.split}, row {number + 1} {problem}: {shortened(row)}"


def _length_of(example: Row) -> int:
    if "chosen_ids" in example:
        return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))
    return len(example["input_ids"])


def _schema_of(examples: list[Row]) -> Any:
    """Tokens and their labels take four bytes each."""
    inferred = pyarrow.Table.from_pylist(examples).schema
    whole = pyarrow.list_(pyarrow.int64())
    return pyarrow.schema([field.with_type(TOKENS) if field.type == whole else field for field in inferred])
