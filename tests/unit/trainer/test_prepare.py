"""What is told of data before there is a tokenizer; the tokens themselves are tested in tests/trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from llmtune_trainer.cache import Cache
from llmtune_trainer.data.prepare import prepare
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import parse_settings
from llmtune_trainer.sources import Fetched

ROWS = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(40)]


def write(file: Path, rows: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def problem_of(location: Path, **given: Any) -> str:
    """Prepare with a model that has no tokenizer, as it is not come to."""
    model = location.parent / "model"
    model.mkdir(exist_ok=True)
    values = {"model_name_or_path": model, "dataset_name": location, **given}
    settings = parse_settings([f"--{name}={value}" for name, value in values.items()], {})
    cache = Cache(location.parent / "cache", print)
    with pytest.raises(BadInputError) as raised:
        prepare(settings, Fetched(location, "v"), Fetched(model, "v"), cache, print)
    cache.close()
    return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "eval.jsonl", ROWS)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ({"prompt": "a", "completion": ""}, 'line 3 has an empty `completion`: {"prompt": "a", "completion": ""}'),
        ({"prompt": 7, "completion": "b"}, "line 3 has a `prompt` that is no text but int: {"),
        (["a"], 'line 3 is no object with named fields: ["a"]'),
        ('{"prompt": ', 'line 3 is no valid JSON (Expecting value; each line is one JSON object): {"prompt":'),
        ({"prompt": "p", "completion": "x" * 999, "id": ""} | {"completion": 1 << 999}, "…."),
    ],
)
def test_malformed_rows_are_refused_and_the_first_is_shown(folder: Path, bad: Any, shown: str) -> None:
    write(folder / "train.jsonl", [*ROWS[:2], bad, *ROWS, bad])
    problem = problem_of(folder)
    assert (
        "2 of 44 rows of the split 'train' are malformed, more than `--max_malformed_fraction`=0.01 allows" in problem
    )
    assert "The first: train.jsonl, line 3 " in problem
    assert shown in problem
    assert len(problem) < 600


def test_the_threshold_is_a_share_of_each_part_that_is_used(folder: Path) -> None:
    write(folder / "train.jsonl", ROWS * 10)
    write(folder / "eval.jsonl", [*ROWS[:39], {}])
    assert "1 of 40 rows of the split 'eval' are malformed" in problem_of(folder, max_malformed_fraction=0.02)
    # At a fortieth the row is left out, and the tokenizer, which there is none of, is come to.
    write(folder.parent / "model" / "config.json", ["{}"])
    assert "`--model_name_or_path`" in problem_of(folder, max_malformed_fraction=0.025)


def test_rows_outside_of_the_slice_are_not_looked_at(folder: Path) -> None:
    write(folder / "train.jsonl", [*ROWS[:10], {}, *ROWS, "{"])
    assert "1 of 11 rows of the split 'train' are" in problem_of(folder, dataset_train_split="train[:11]")
    assert "1 of 41 rows of the split 'train' are" in problem_of(folder, dataset_train_split="train[11:]")
    assert "first: train.jsonl, line 52 is no valid JSON" in problem_of(folder, dataset_train_split="train[-20:]")


def test_what_lies_behind_the_first_rows_is_not_read(folder: Path) -> None:
    write(folder / "train-1.jsonl", [*ROWS[:9], {}])
    write(folder / "train-2.parquet", ["nonsense"])
    assert "1 of 10 rows of the split 'train' are" in problem_of(folder, dataset_train_split="train[:10]")
    assert "train-2.parquet is no readable parquet file" in problem_of(folder, dataset_train_split="train[:11]")


@pytest.mark.parametrize("name", ["train", "eval"])
def test_an_empty_split_is_refused(folder: Path, name: str) -> None:
    write(folder / "train.jsonl", ROWS)
    write(folder / f"{name}.jsonl", ["", ""])
    assert f"The split {name} of {folder} is empty" in problem_of(folder)


def test_an_empty_part_of_a_split_is_refused(folder: Path) -> None:
    write(folder / "train.jsonl", ROWS)
    assert "The split train[50:60] of" in problem_of(folder, dataset_train_split="train[50:60]")


def test_unknown_fields_are_told_before_rows_are_counted(folder: Path) -> None:
    write(folder / "train.jsonl", [{"question": "q", "answer": "a"}] * 5)
    assert "have the fields question, answer, which is none of the known formats of --task sft" in problem_of(folder)


def test_a_file_of_broken_lines_alone_shows_the_first(folder: Path) -> None:
    write(folder / "train.jsonl", ["{"] * 5)
    assert "5 of 5 rows of the split 'train' are malformed" in problem_of(folder)


def test_two_parts_of_a_split_that_share_rows_are_refused(folder: Path) -> None:
    write(folder / "train.jsonl", ROWS)
    parts = {"dataset_train_split": "train[:50%]", "dataset_test_split": "train[15:]"}
    assert "share 5 rows" in problem_of(folder, **parts)


def test_classes_are_told_apart_or_refused(tmp_path: Path) -> None:
    rows = [{"text": str(number), "label": 1} for number in range(20)]
    file = write(tmp_path / "rows.jsonl", rows)
    assert "are of one class (1)" in problem_of(file, task="classification")
    write(file, [*rows, {"text": "a", "label": ["1", "2"]}])
    assert "Some rows of" in problem_of(file, task="classification", max_malformed_fraction=0.5)


def test_a_wrong_row_costs_no_import_of_torch(folder: Path) -> None:
    write(folder / "train.jsonl", [*ROWS, {}])
    Dataset.from_list(ROWS).save_to_disk(str(folder / "test"))
    code = (
        "import sys\n"
        "from llmtune_trainer.__main__ import main\n"
        f"code = main(['--model_name_or_path', {str(folder)!r}, '--dataset_name', {str(folder)!r}], {{}})\n"
        "print(code, sorted({'torch', 'transformers', 'trl'} & sys.modules.keys()))\n"
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "2 []", done.stdout + done.stderr
    assert "1 of 41 rows" in done.stderr
