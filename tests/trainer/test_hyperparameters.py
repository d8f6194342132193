"""Flags of the libraries' classes do what they say in a training, and not only in the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SHORT = {"max_steps": 4, "max_train_samples": 16, "max_eval_samples": 4, "learning_rate": 0.005}


@pytest.mark.parametrize(
    "settings",
    [
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr_rate": 0.1}'},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": '{"num_decay_steps": 1}'},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_steps": 1},
        {"lr_scheduler_type": "greedy", "eval_steps": 1},
        {"optim": "adafactor"},
        {"optim": "sgd", "max_grad_norm": 0.1},
        {"adam_beta2": 0.9, "adam_epsilon": 1e-3},
        {"warmup_steps": 3},
        {"neftune_noise_alpha": 5},
        {"label_smoothing_factor": 0.2},
        {"loss_type": "dft"},
        {"padding_free": False, "train_sampling_strategy": "group_by_length"},
        {"use_dora": True},
        {"lora_alpha": "0.5r"},
        {"use_rslora": True, "lora_rank_pattern": '{"q_proj": 2}'},
        {"lora_init_lora_weights": "orthogonal"},
        {"lora_target_modules": "q_proj", "lora_layers_to_transform": "0"},
    ],
    ids=lambda settings: next(reversed(settings.items())),
)
def test_a_hyperparameter_changes_what_is_learned(train: Any, plain: float, settings: dict[str, Any]) -> None:
    run = train(**{**SHORT, **settings})
    assert run.code == 0, run.termination
    assert run.termination["metrics"]["eval_loss"] != plain


@pytest.fixture(scope="module")
def losses() -> dict[str, float]:
    return {}


@pytest.fixture
def plain(train: Any, losses: dict[str, float]) -> float:
    """The loss of the same training with the defaults, which are trained with once."""
    if not losses:
        losses["plain"] = train(**SHORT).termination["metrics"]["eval_loss"]
    return losses["plain"]


def test_what_only_saves_memory_changes_nothing(train: Any, plain: float) -> None:
    checkpointing = {"activation_checkpointing": True, "activation_checkpointing_kwargs": '{"every_n_layers": 2}'}
    assert train(**SHORT, **checkpointing).termination["metrics"]["eval_loss"] == pytest.approx(plain, rel=1e-6)


def test_what_was_given_stands_in_the_result(train: Any, tmp_path: Path) -> None:
    given = {"adam_beta2": "0.9", "lora_rank_pattern": '{"q_proj": 2}', "packing": "False", "lora_alpha": "2r"}
    run = train(output_dir=tmp_path / "out", lora_r="4.0", **SHORT, **given)
    assert run.code == 0, run.termination
    parameters = run.termination["manifest"]["parameters"]
    assert parameters["adam_beta2"] == 0.9
    assert parameters["packing"] is False
    assert (parameters["lora_r"], parameters["lora_alpha"]) == (4, 8.0)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (4, 8.0, {"q_proj": 2})


def test_every_mistake_is_told_before_the_model_is_looked_at(train: Any) -> None:
    run = train(of="/nowhere", learning_rat=1, lora_r="many", bf16="true", beta=0.1)
    assert run.code == 2
    told = run.termination["error"]
    assert "The settings have 4 mistakes" in told
    for words in ("did you mean --learning_rate?", "`--lora_r`='many'", "use --dtype", "is of --task dpo"):
        assert words in told
