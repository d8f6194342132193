from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmtune_trainer.manifest import describe, fingerprint_of
from llmtune_trainer.settings import parse_settings
from llmtune_trainer.sources import dataset_version, hub_commit, model_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REQUIRED = ["--model_name_or_path", "hf://org/model", "--dataset_name", "s3://bucket/data"]
ROWS = [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5])]


def test_rows_compare_in_any_order_and_each_counts() -> None:
    assert fingerprint_of(ROWS) == fingerprint_of(reversed(ROWS))
    assert len(fingerprint_of(ROWS)) == 16


@pytest.mark.parametrize(
    "others",
    [
        ROWS[:1],
        [*ROWS, ROWS[0]],
        [([1, 2, 3], [-100, -100, 3]), ROWS[1]],
        [([1, 2, 4], [-100, 2, 3]), ROWS[1]],
        [([1, 2, 3], [-100, 2, 3, 4]), ([5], [-100, 5])],
        [],
    ],
)
def test_other_tokens_or_labels_have_another_fingerprint(others: list[tuple[list[int], list[int]]]) -> None:
    assert fingerprint_of(others) != fingerprint_of(ROWS)


def test_a_manifest_holds_what_was_chosen_with_its_type_and_no_place() -> None:
    given = ["--learning_rate", "1e-3", "--lora_r", "16", "--lora_target_modules", "q_proj,v_proj"]
    places = ["--output_dir", "/out", "--model_revision", "main", "--sample_prompt", "Hello?"]
    settings = parse_settings([*REQUIRED, *given, *places], {})
    described = describe(
        settings,
        base_model_revision=COMMIT,
        dataset_version="sha256:1",
        rows={"train": 9, "eval": 1},
        steps=3,
        evaluation={"fingerprint": "f", "rows": 1},
    )
    assert json.loads(json.dumps(described)) == {
        "base_model": "org/model",
        "base_model_revision": COMMIT,
        "dataset": "s3://bucket/data",
        "dataset_version": "sha256:1",
        # A value given as the default is the default.
        "parameters": {"learning_rate": 0.001, "lora_target_modules": ["q_proj", "v_proj"]},
        "rows": {"train": 9, "eval": 1},
        "steps": 3,
        "trainer_version": "0.1.0",
        "evaluation": {"fingerprint": "f", "rows": 1},
    }


def test_a_snapshot_of_the_hub_is_known_by_its_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    assert hub_commit(snapshot) == model_version(snapshot) == COMMIT
    assert dataset_version("org/data", snapshot) == COMMIT
    assert hub_commit(tmp_path) is None


def test_the_version_of_files_follows_names_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "data" / "train.jsonl"
    file.parent.mkdir()

    def versions(content: str) -> tuple[str, str]:
        file.write_text(content, encoding="utf-8")
        return dataset_version(str(file.parent), file.parent), dataset_version(str(file), file)

    folder, single = versions("one")
    assert folder == single
    (file.parent / ".cache").write_text("x", encoding="utf-8")
    assert versions("one") == (folder, single)
    assert folder not in versions("two")
    (file.parent / "eval.jsonl").write_text("three", encoding="utf-8")
    assert versions("one")[0] not in (folder, single)


def test_a_model_is_told_from_another_wherever_it_lies(tmp_path: Path) -> None:
    for name, size in (("here", 3), ("there", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * size)
    here, there, other = (model_version(tmp_path / name) for name in ("here", "there", "other"))
    assert here == there != other
