"""What vLLM cannot load is refused before it is deployed, as far as the trainer has told of the adapter."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.adapter import check_servable, read_rank
from airflow_llmtune.resources.problems import Problems


def told(parameters: Any, most: int | None = None) -> tuple[int | None, list[tuple[str, str]]]:
    problems = Problems()
    rank = check_servable({"parameters": parameters}, most, problems)
    return rank, [(error.argument.rpartition(".")[2], error.rule) for error in problems.errors]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("use_dora", True, "makes a DoRA adapter"),
        ("use_dora", "true", "makes a DoRA adapter"),
        ("lora_bias", "lora_only", "trains biases"),
        ("lora_bias", "all", "trains biases"),
        ("lora_modules_to_save", ["lm_head"], "saves whole modules"),
        ("lora_modules_to_save", "lm_head", "saves whole modules"),
        ("task", "classification", "makes no model that generates text"),
        ("use_peft", False, "makes no adapter"),
        ("lora_r", 1024, "is more than vLLM's 512"),
    ],
)
def test_each_reason_is_named(name: str, value: Any, rule: str) -> None:
    _, mistakes = told({name: value})
    ((argument, why),) = mistakes
    assert argument == name
    assert rule in why


def test_all_reasons_are_told_at_once() -> None:
    _, mistakes = told({"use_dora": True, "lora_bias": "all", "lora_modules_to_save": ["a"], "lora_r": 600})
    assert [name for name, _ in mistakes] == ["lora_bias", "lora_modules_to_save", "use_dora", "lora_r"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"use_dora": False, "lora_bias": "none", "lora_modules_to_save": None, "task": "sft", "use_peft": True},
        {"lora_modules_to_save": [], "task": "dpo", "use_rslora": True, "learning_rate": 1e-3},
    ],
)
def test_the_usual_adapter_can_be_served(parameters: Any) -> None:
    assert told(parameters) == (None, [])


@pytest.mark.parametrize(("rank", "ready"), [(1, 1), (4, 8), (16, 16), (24, 32), (512, 512), ("64", 64)])
def test_the_rank_follows_from_the_adapter(rank: Any, ready: int) -> None:
    assert told({"lora_r": rank}) == (ready, [])


@pytest.mark.parametrize(("given", "ready"), [({"lora_r": 8}, 64), ({}, 64), ({"lora_r": 128}, 128)])
def test_the_largest_rank_of_a_pattern_counts(given: Any, ready: int) -> None:
    assert told({**given, "lora_rank_pattern": {"q_proj": 4, "v_proj": 50}}) == (ready, [])


def test_a_layer_without_a_rank_of_its_own_has_the_trainers() -> None:
    assert told({"lora_rank_pattern": {"q_proj": 4}}) == (16, [])


def test_a_rank_that_was_given_has_to_be_enough() -> None:
    assert told({"lora_r": 8}, 32) == (32, [])
    rank, ((argument, rule),) = told({"lora_r": 64}, 32)
    assert (rank, argument, rule) == (32, "lora_r", "is more than `max_lora_rank`=32")


@pytest.mark.parametrize("manifest", [None, {}, {"parameters": None}])
def test_of_an_adapter_of_which_nothing_is_told_nothing_is_refused(manifest: Any) -> None:
    problems = Problems()
    assert check_servable(manifest, 16, problems) == 16
    assert problems.errors == []


def test_what_is_no_manifest_is_told() -> None:
    problems = Problems()
    check_servable("s3://bucket/adapter", None, problems)
    assert [error.argument for error in problems.errors] == ["adapter_manifest"]


def test_a_rank_needs_an_adapter() -> None:
    problems = Problems()
    assert read_rank(8, None, problems) == 8
    assert [error.rule for error in problems.errors] == ["needs an adapter"]
    assert read_rank(None, None, problems) is None
