"""The trainer as the process that a pod runs: exit codes, streams, signals, torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtune_trainer.__main__ import _use_one_gpu


def _arguments(model: Path | str, data: Path | str, *more: str) -> list[str]:
    return ["--model_name_or_path", str(model), "--dataset_name", str(data), "--dtype", "float32", *more]


def test_a_shell_pipeline_reads_the_metrics_and_nothing_else_on_stdout(
    command: Any, model: Path, data: Path, tmp_path: Path
) -> None:
    """Katib runs the command in a shell with both streams in one file; a setting may come from the environment."""
    environ = {"LLMTUNE_MAX_STEPS": "2", "LLMTUNE_EVALUATE_BASE_MODEL": "true", "LLMTUNE_OUTPUT_DIR": "adapter"}
    run = command(_arguments(model, data), environ=environ)
    assert run.code == 0, run.stderr
    assert run.stderr == ""
    evaluated = {"loss", "perplexity", "token_accuracy"}
    assert set(run.metrics) == {
        *(f"{when}_{name}" for when in ("base_eval", "eval") for name in evaluated),
        *("train_loss", "learning_rate", "epoch", "train_tokens_per_second", "peak_memory_bytes"),
    }
    assert run.termination["artifact_uri"] == str(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "result.json").is_file()


def test_five_mistakes_are_reported_at_once_without_loading_torch(command: Any, model: Path, data: Path) -> None:
    bad = (
        "--learning_rate",
        "fast",
        "--lora_r",
        "0",
        "--evaluate_base_model",
        "maybe",
        "--lora_rank",
        "8",
        "--max_steps=ten",
    )
    launcher = (sys.executable, "-X", "importtime", "-m", "llmtune_trainer")
    run = command(_arguments(model, data, *bad), launcher=launcher)
    assert run.code == 2
    assert "The settings have 5 mistakes" in run.termination["error"]
    for words in (
        "`--learning_rate`='fast'",
        "`--lora_r`='0'",
        "`--evaluate_base_model`='maybe'",
        "did you mean --lora_r?",
        "'ten'",
    ):
        assert words in run.stderr
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert imported.isdisjoint({"torch", "transformers", "boto3", "datasets", "huggingface_hub"})


def test_a_name_that_is_no_folder_and_not_on_the_hub_names_both(command: Any, data: Path) -> None:
    environ = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "0"}
    run = command(_arguments("no-such-org/no-such-model", data), environ=environ)
    assert run.code == 2
    assert "is no local path, and the Hugging Face Hub could not be reached" in run.termination["error"]
    assert "Traceback" not in run.stderr


def test_a_stopped_run_ends_non_zero_and_leaves_no_temporary_file(model: Path, data: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmtune_trainer", *_arguments(model, data, "--max_steps", "100000")],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("adapter:"):
                process.send_signal(signal.SIGTERM)
                break
        assert process.wait(timeout=30) == 143
    assert list(scratch.glob("llmtune-*")) == []


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, "0"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, "2"),
        ({"CUDA_VISIBLE_DEVICES": "MIG-7"}, "MIG-7"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "WORLD_SIZE": "2"}, "0,1"),
        ({"WORLD_SIZE": "2"}, None),
    ],
)
def test_a_process_alone_takes_one_gpu(given: dict[str, str], left: str | None) -> None:
    _use_one_gpu(given)
    assert given.get("CUDA_VISIBLE_DEVICES") == left
