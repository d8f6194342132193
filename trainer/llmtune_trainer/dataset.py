"""Text for training and evaluation: from files or save_to_disk trees to checked rows of one of three formats.

* ``messages``: a list of ``{"role", "content"}``; each answer of the assistant is learned, given what came before;
* ``prompt`` and ``completion``: only the completion is learned;
* ``text``: everything is learned.

Which rows are evaluated depends on the data, ``split_seed`` and ``max_eval_samples`` alone, so that the losses of
all trials and of the final run compare; a smaller share of the training rows is a subset of a larger one.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings

Row = dict[str, Any]
FORMATS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt+completion": ("prompt", "completion"),
    "text": ("text",),
}
EVAL_SPLITS = ("validation", "eval", "test")
DEFAULT_EVAL_FRACTION = 0.1
SHARD = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?$")
HUB_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Examples:
    format: str
    train: list[Row]
    eval: list[Row]


def load_examples(location: Path, settings: Settings) -> Examples:
    splits = read_splits(location)
    train = _split(splits, settings.dataset_train_split, "--dataset_train_split", settings)
    if test_split := _test_split(splits, settings):
        held_out = _split(splits, test_split, "--dataset_test_split", settings)
    else:
        train, held_out = _hold_out(train, settings)
    row_format = _format_of(train[0], settings)
    train = [_checked(row, row_format, number, "training") for number, row in enumerate(train, 1)]
    held_out = [_checked(row, row_format, number, "evaluation") for number, row in enumerate(held_out, 1)]
    share = max(1, round(settings.train_fraction * len(train)))
    return Examples(
        row_format,
        _subset(train, min(share, settings.max_train_samples or share), settings.split_seed),
        _subset(held_out, settings.max_eval_samples or len(held_out), settings.split_seed),
    )


def to_training_rows(rows: Sequence[Row], row_format: str, *, chat: bool) -> list[Row]:
    """Return rows as TRL takes them; with a chat template, prompt and completion become a conversation."""
    if row_format == "text":
        return [{"text": row["text"]} for row in rows]
    if row_format == "messages":
        return [
            {"prompt": row["messages"][:index], "completion": [message]}
            for row in rows
            for index, message in enumerate(row["messages"])
            if message["role"] == "assistant" and index > 0
        ]
    if not chat:
        return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    return [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in rows
    ]


# --- reading ------------------------------------------------------------------------------------------------


def read_splits(location: Path) -> dict[str, list[Row]]:
    if location.is_file():
        return {"train": _read_file(location)}
    if any((location / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json")):
        return _read_saved(location)
    files = sorted(file for file in location.rglob("*") if file.suffix in READERS and file.is_file())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(location).parts)]
    if not files:
        raise BadInputError(
            f"{location} holds no data file. Fix: put {', '.join(READERS)} files there, such as train.jsonl and "
            "eval.jsonl."
        )
    if len(files) == 1:
        return {"train": _read_file(files[0])}
    splits: dict[str, list[Row]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(location)), []).extend(_read_file(file))
    return splits


def _split_of(file: Path) -> str:
    """Return ``train`` for train.jsonl, data/train-00000-of-00002.parquet (the Hub's way) and train/part-1.jsonl."""
    name = SHARD.sub("", file.stem)
    named = len(file.parts) == 1 or name in ("train", *EVAL_SPLITS) or HUB_SHARD.search(file.stem)
    return name if named else file.parts[0]


def _read_saved(location: Path) -> dict[str, list[Row]]:
    # Half a second that plain files do not pay.
    from datasets import DatasetDict, load_from_disk

    saved = load_from_disk(str(location))
    splits = saved if isinstance(saved, DatasetDict) else {"train": saved}
    return {name: split.to_list() for name, split in splits.items()}


def _read_file(file: Path) -> list[Row]:
    reader = READERS.get(file.suffix)
    if reader is None:
        raise BadInputError(f"{file} is no data file that can be read. Fix: give a {', '.join(READERS)} file.")
    try:
        rows = reader(file)
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file} is not UTF-8 (byte {error.start}). Fix: convert it.") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadInputError(f"{file.name}, row {number} is no object with named fields: {_shortened(row)}.")
    return rows


def _read_json(file: Path) -> list[Any]:
    if not file.read_text(encoding="utf-8-sig").lstrip().startswith("["):
        return _read_jsonl(file)
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{file.name} is no valid JSON: {error}. Fix: correct the file.") from error
    return list(rows)


def _read_jsonl(file: Path) -> list[Any]:
    rows = []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise BadInputError(
                        f"{file.name}, line {number} is no valid JSON ({error.msg}): "
                        f"{_shortened(line.strip())}. Fix: correct the line; each line is one JSON object."
                    ) from error
    return rows


def _read_csv(file: Path) -> list[Any]:
    csv.field_size_limit(LONGEST_FIELD)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        rows = list(reader)
    for number, row in enumerate(rows, 1):
        if None in row:
            raise BadInputError(
                f"{file.name}, row {number} has more columns than the heading "
                f"({', '.join(reader.fieldnames or ())}). "
                "Fix: put a field that contains a comma in double quotes."
            )
    return list(rows)


def _read_parquet(file: Path) -> list[Any]:
    # A tenth of a second that other formats do not pay.
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_table(file).to_pylist())
    except pyarrow.ArrowException as error:
        raise BadInputError(f"{file.name} is no readable parquet file: {error} Fix: write it again.") from error


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


# --- choosing rows ------------------------------------------------------------------------------------------


def _split(splits: dict[str, list[Row]], name: str, flag: str, settings: Settings) -> list[Row]:
    if name not in splits:
        otherwise = ", or use --eval_fraction 0.1" if flag == "--dataset_test_split" else ""
        raise BadInputError(
            f"`{flag}`={name!r} is no split of {settings.dataset_name}, which has "
            f"{', '.join(sorted(splits))}. Fix: name one of these{otherwise}."
        )
    if not splits[name]:
        raise BadInputError(f"The split {name!r} of {settings.dataset_name} is empty. Fix: `{flag}` another split.")
    return splits[name]


def _test_split(splits: dict[str, list[Row]], settings: Settings) -> str | None:
    if settings.dataset_test_split is not None or settings.eval_fraction is not None:
        return settings.dataset_test_split
    return next((name for name in EVAL_SPLITS if name in splits and name != settings.dataset_train_split), None)


def _hold_out(rows: list[Row], settings: Settings) -> tuple[list[Row], list[Row]]:
    """Return training and evaluation rows; no row is in both, even when the data repeats it."""
    fraction = settings.eval_fraction or DEFAULT_EVAL_FRACTION
    held_out = _subset(rows, max(1, round(fraction * len(rows))), settings.split_seed)
    known = {_identity(row) for row in held_out}
    train = [row for row in rows if _identity(row) not in known]
    if not train:
        raise BadInputError(
            f"Of the {len(rows)} rows of {settings.dataset_name} none is left to train on once {len(held_out)} "
            "are held out for evaluation (equal rows count as one). Fix: give more rows or a smaller "
            "--eval_fraction."
        )
    return train, held_out


def _identity(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=str)


def _subset(rows: list[Row], count: int, seed: int) -> list[Row]:
    """Return ``count`` rows in their order; with the same seed, fewer rows are a part of more rows."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311  not for secrets
    return [rows[index] for index in sorted(order[:count])]


# --- checking -----------------------------------------------------------------------------------------------


def _format_of(row: Row, settings: Settings) -> str:
    for name, columns in FORMATS.items():
        if all(column in row for column in columns):
            return name
    raise BadInputError(
        f"The rows of {settings.dataset_name} have the fields {', '.join(map(str, row))}, which is none of the "
        "known formats. Fix: name them messages, or prompt and completion, or text."
    )


def _checked(row: Row, row_format: str, number: int, split: str) -> Row:
    columns = FORMATS[row_format]
    if row_format == "messages":
        problem = _messages_problem(row.get("messages"))
    else:
        problem = next((found for column in columns if (found := _text_problem(column, row.get(column)))), None)
    if problem:
        raise BadInputError(
            f"Row {number} of the {split} rows {problem}: {_shortened(row)}. Fix: correct or remove the row."
        )
    return {column: row[column] for column in columns}


def _text_problem(column: str, value: Any) -> str | None:
    if value is None:
        return f"has no `{column}`"
    if not isinstance(value, str):
        return f"has a `{column}` that is no text but {type(value).__name__}"
    return None if value.strip() else f"has an empty `{column}`"


def _messages_problem(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return "has no list of `messages`"
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return "has a message without `role`"
        if problem := _text_problem("content", message.get("content")):
            return problem
    if all(message["role"] != "assistant" for message in messages[1:]):
        return "has no answer of the role `assistant` to learn"
    return None


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 160 else text[:160] + "…"
