from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from llmtune_trainer.dataset import Examples, load_examples, read_splits, to_training_rows
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import parse_settings

ROWS = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(40)]


def write(file: Path, rows: Iterable[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def load(location: Path, **settings: Any) -> Examples:
    given = {"model_name_or_path": "m", "dataset_name": str(location), **settings}
    return load_examples(location, parse_settings([f"--{name}={value}" for name, value in given.items()], {}))


# --- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train.jsonl", "eval.jsonl"], {"train": 40, "eval": 40}),
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.json"], {"train": 80, "test": 40}),
        (["train/a.jsonl", "train/b.jsonl", "validation/a.jsonl"], {"train": 80, "validation": 40}),
        (["data/train_sft-00000-of-00001.jsonl", "data/test.jsonl"], {"train_sft": 40, "test": 40}),
        (["whatever.jsonl"], {"train": 40}),
        (["train.jsonl", ".hidden.jsonl", "README.md"], {"train": 40}),
    ],
)
def test_files_and_folders_name_the_splits(tmp_path: Path, files: list[str], splits: dict[str, int]) -> None:
    for name in files:
        write(tmp_path / name, ROWS)
    assert {name: len(rows) for name, rows in read_splits(tmp_path).items()} == splits


@pytest.mark.parametrize("name", ["validation", "eval", "test"])
def test_a_usual_evaluation_split_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / f"{name}.jsonl", ROWS[:3])
    assert load(tmp_path).eval == ROWS[:3]


def test_a_missing_split_names_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "holdout.jsonl", ROWS)
    with pytest.raises(
        BadInputError, match=r"--dataset_test_split`='eval' is no split .* has holdout, train\. Fix: .*--eval_fraction"
    ):
        load(tmp_path, dataset_test_split="eval")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "eval.jsonl", [])
    with pytest.raises(BadInputError, match=r"The split 'eval' .* is empty"):
        load(tmp_path)


# --- which rows ---------------------------------------------------------------------------------------------


def test_the_same_rows_are_held_out_whatever_share_is_trained_on(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    small, large, everything = (load(file, eval_fraction=0.25, train_fraction=share) for share in (0.1, 0.5, 1))
    assert small.eval == large.eval == everything.eval
    assert [len(examples.train) for examples in (small, large, everything)] == [3, 15, 30]
    assert all(row in large.train for row in small.train)
    assert all(row not in everything.eval for row in everything.train)


def test_the_split_depends_on_split_seed_and_not_on_seed(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    assert load(file, seed=1).eval == load(file, seed=2).eval
    assert load(file, split_seed=1).eval != load(file, split_seed=2).eval


def test_a_row_that_is_repeated_is_not_on_both_sides(tmp_path: Path) -> None:
    examples = load(write(tmp_path / "rows.jsonl", ROWS[:4] * 10), eval_fraction=0.05)
    assert len(examples.eval) == 2
    assert all(row not in examples.eval for row in examples.train)


def test_too_few_rows_to_hold_any_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="none is left to train on"):
        load(write(tmp_path / "rows.jsonl", ROWS[:1]))


def test_limits_on_rows_hold(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "eval.jsonl", ROWS[:10])
    examples = load(tmp_path, max_train_samples=7, max_eval_samples=4)
    assert (len(examples.train), len(examples.eval)) == (7, 4)


# --- bad data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n', ["a.jsonl, line 3", '{"text":', "each line is one JSON object"]),
        ("a.json", '[{"text": "a"},]', ["a.json is no valid JSON"]),
        ("a.jsonl", '{"text": "a"}\n["b"]', ["row 2 is no object with named fields", '["b"]']),
        ("a.csv", "prompt,completion\na,b\na,b,c\n", ["row 2 has more columns", "double quotes"]),
        ("a.parquet", "nonsense", ["a.parquet is no readable parquet file"]),
        ("a.txt", "hello", ["no data file that can be read", ".jsonl"]),
    ],
)
def test_a_file_that_cannot_be_read_is_shown(tmp_path: Path, name: str, content: str, words: list[str]) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError) as raised:
        load(file)
    assert all(word in str(raised.value) for word in words)


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    with pytest.raises(BadInputError, match="is not UTF-8"):
        load(tmp_path / "a.jsonl")


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no data file.*train\.jsonl and eval\.jsonl"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"prompt": "a", "completion": ""}, "has an empty `completion`"),
        ({"prompt": "a", "completion": None}, "has no `completion`"),
        ({"prompt": "a"}, "has no `completion`"),
        ({"prompt": 7, "completion": "b"}, "has a `prompt` that is no text but int"),
    ],
)
def test_the_first_bad_row_is_shown(tmp_path: Path, bad: dict[str, Any], words: str) -> None:
    write(tmp_path / "train.jsonl", [*ROWS[:5], bad, bad])
    write(tmp_path / "eval.jsonl", ROWS)
    with pytest.raises(BadInputError, match=f"Row 6 of the training rows {words}") as raised:
        load(tmp_path)
    assert json.dumps(bad) in str(raised.value)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "has no list of `messages`"),
        ([{"content": "a"}], "has a message without `role`"),
        ([{"role": "user", "content": " "}], "has an empty `content`"),
        ([{"role": "user", "content": "a"}], "has no answer of the role `assistant`"),
    ],
)
def test_bad_messages_are_shown(tmp_path: Path, messages: list[Any], words: str) -> None:
    write(tmp_path / "train.jsonl", [{"messages": messages}])
    write(tmp_path / "eval.jsonl", [{"messages": messages}])
    with pytest.raises(BadInputError, match=f"Row 1 of the training rows {words}"):
        load(tmp_path)


def test_unknown_fields_name_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"have the fields question, answer, .* messages, or prompt and completion, or text"
    ):
        load(write(tmp_path / "rows.jsonl", [{"question": str(number), "answer": "b"} for number in range(9)]))


# --- rows for the trainer -----------------------------------------------------------------------------------


def test_each_answer_of_a_conversation_is_learned_given_what_came_before() -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a2"},
    ]
    assert to_training_rows([{"messages": turns}], "messages", chat=True) == [
        {"prompt": turns[:2], "completion": [turns[2]]},
        {"prompt": turns[:4], "completion": [turns[4]]},
    ]


def test_prompts_become_a_conversation_only_for_a_chat_model() -> None:
    row = {"prompt": "q", "completion": "a"}
    assert to_training_rows([row], "prompt+completion", chat=False) == [row]
    assert to_training_rows([row], "prompt+completion", chat=True) == [
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    ]
