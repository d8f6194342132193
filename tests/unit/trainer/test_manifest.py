from __future__ import annotations

import json

import pytest

from llmtune_trainer.manifest import describe, evaluation_of, fingerprint_of
from llmtune_trainer.settings import parse_settings

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


def test_losses_of_two_betas_do_not_compare() -> None:
    def evaluated(*given: str) -> object:
        return evaluation_of(parse_settings([*REQUIRED, *given], {}), "0123456789abcdef", 12)

    dpo = ("--task", "dpo")
    assert evaluated() == {"fingerprint": "0123456789abcdef", "rows": 12}
    assert evaluated(*dpo) == evaluated(*dpo, "--beta", "0.1") == evaluated(*dpo, "--beta", "1e-1")
    assert evaluated(*dpo) != evaluated(*dpo, "--beta", "0.2")


def test_a_manifest_holds_what_was_chosen_with_its_type_and_no_place() -> None:
    given = ["--learning_rate", "1e-3", "--lora_r", "16", "--lora_target_modules", "q_proj,v_proj"]
    places = ["--output_dir", "/out", "--model_revision", "main", "--sample_prompt", "Hello?"]
    settings = parse_settings([*REQUIRED, *given, *places], {})
    described = describe(
        settings,
        base_model_revision=COMMIT,
        dataset_version="sha256:1",
        data={"format": "text", "rows": {"train": 9, "eval": 1}},
        steps=3,
        trained_tokens=270,
        evaluation={"fingerprint": "f", "rows": 1},
        classes=(),
        unservable=["use_dora: not supported"],
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
        "trained_tokens": 270,
        "trainer_version": "0.1.0",
        "evaluation": {"fingerprint": "f", "rows": 1},
        "data": {"format": "text"},
        "servable": False,
        "unservable": ["use_dora: not supported"],
    }
