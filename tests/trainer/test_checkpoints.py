"""A run that was ended goes on where it was, and comes to the same losses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import tiny_model
from launchers import ONE_PROCESS, TWO_PROCESSES
from tiny_files import write_jsonl

# More than one epoch, and chance in every step.
COURSE = {
    "num_train_epochs": 3,
    "learning_rate": "2e-3",
    "per_device_train_batch_size": 4,
    "lora_dropout": 0.2,
    "save_steps": 5,
}


def as_flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _send(pid: int, number: signal.Signals) -> None:
    """SIGKILL ends all processes of a container; any other signal goes to the first."""
    process = psutil.Process(pid)
    family = process.children(recursive=True) if number == signal.SIGKILL else []
    for member in (process, *family):
        member.send_signal(number)


@pytest.fixture
def given(model: Path, data: Path) -> list[str]:
    return as_flags({"model_name_or_path": model, "dataset_name": data, "dtype": "float32"})


@pytest.fixture
def interrupt(tmp_path: Path) -> Callable[..., int]:
    """Start the trainer, send it a signal once it has printed a line that begins so, and return its exit code."""

    def run(arguments: Sequence[str], line: str, number: signal.Signals, launcher: Sequence[str] = ONE_PROCESS) -> int:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        environ = {**os.environ, "TMPDIR": str(scratch), "LLMTUNE_TERMINATION_LOG": str(tmp_path / "log")}
        command = [*launcher, *arguments]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            heard = []
            for text in process.stdout:
                heard.append(text)
                if text.startswith(line):
                    _send(process.pid, number)
                    break
            heard += process.stdout.readlines()
            code = process.wait(timeout=60)
        assert any(text.startswith(line) for text in heard), "".join(heard)
        # What a killed process could not clean up.
        shutil.rmtree(scratch)
        return code

    return run


@pytest.mark.timeout(300)  # up to six processes that import torch, beside other tests
@pytest.mark.parametrize("launcher", [ONE_PROCESS, TWO_PROCESSES], ids=["one process", "two processes"])
def test_a_killed_run_is_resumed_and_ends_with_the_same_losses(
    train: Any, command: Any, interrupt: Any, given: list[str], tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    course = COURSE | {"num_train_epochs": 12, "eval_steps": 60}

    def run(settings: dict[str, Any]) -> Any:
        # What is not killed and runs alone needs no process of its own.
        alone = launcher is ONE_PROCESS
        return train(**settings) if alone else command([*given, *as_flags(settings)], launcher)

    arguments = [*given, *as_flags(course | {"output_dir": tmp_path / "adapter"})]
    assert interrupt(arguments, "checkpoint saved: step 10", signal.SIGKILL, launcher) == -signal.SIGKILL
    resumed = run(course | {"output_dir": tmp_path / "adapter"})
    assert resumed.code == 0, resumed.stderr
    assert re.search(r"^resumed from step \d+$", resumed.stdout, re.MULTILINE)
    whole = run(course | {"output_dir": tmp_path / "whole"})
    assert "\nresumed" not in whole.stdout
    assert resumed.results == pytest.approx(whole.results, rel=1e-6)
    after = len(resumed.metrics["train_loss"])
    assert resumed.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"][-after:], rel=1e-6)
    assert resumed.termination["manifest"] == whole.termination["manifest"]
    assert not (tmp_path / "adapter" / ".checkpoints").exists()
    assert (tmp_path / "adapter" / "result.json").is_file()


@pytest.mark.parametrize("launcher", [ONE_PROCESS, TWO_PROCESSES], ids=["one process", "two processes"])
def test_a_run_that_is_told_to_stop_saves_first_and_does_not_look_finished(
    interrupt: Any, given: list[str], tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    course = [*given, *as_flags(COURSE | {"num_train_epochs": 30, "save_steps": 400})]
    arguments = [*course, f"--output_dir={tmp_path / 'adapter'}"]
    code = interrupt(arguments, "20", signal.SIGTERM, launcher)
    assert code != 0
    if launcher is ONE_PROCESS:
        assert code == 128 + signal.SIGTERM
    (saved,) = (tmp_path / "adapter" / ".checkpoints").iterdir()
    mark = json.loads((saved / "checkpoint.json").read_text(encoding="utf-8"))
    assert 0 < mark["step"] < 360
    assert not (tmp_path / "adapter" / "result.json").exists()


# --- in this process ----------------------------------------------------------------------------------------


@pytest.fixture
def stopped(train: Any, stop_after: Any, tmp_path: Path) -> dict[str, Any]:
    """The settings of a run that was stopped at its fifth step."""
    settings = {"max_steps": 8, "save_steps": 2, "output_dir": tmp_path / "adapter"}
    stop_after(4)
    with pytest.raises(SystemExit):
        train(**settings)
    return settings


@pytest.mark.parametrize("step", [11, 12, 13], ids=["last of an epoch", "first of an epoch", "second of an epoch"])
def test_a_run_goes_on_from_any_step(train: Any, stop_after: Any, tmp_path: Path, step: int) -> None:
    """Twelve steps are one pass over the rows; the run is stopped one step after the given one."""
    course = COURSE | {"save_steps": 1, "num_train_epochs": 2, "per_device_train_batch_size": 2}
    course |= {"gradient_accumulation_steps": 2, "output_dir": tmp_path / "adapter"}
    stop_after(step - 1)
    with pytest.raises(SystemExit):
        train(**course)
    resumed = train(**course)
    assert f"\nresumed from step {step}\n" in resumed.stdout
    whole = train(**course)
    assert resumed.results == pytest.approx(whole.results, rel=1e-6)


def test_a_training_of_all_weights_goes_on_too(train: Any, stop_after: Any, tmp_path: Path) -> None:
    course = {"use_peft": "false", "max_steps": 8, "save_steps": 2, "output_dir": tmp_path / "model"}
    stop_after(4)
    with pytest.raises(SystemExit):
        train(**course)
    saved = tmp_path / "model" / ".checkpoints" / "checkpoint-5"
    names = {file.name for file in saved.iterdir()}
    assert "model.safetensors" in names
    assert not {name for name in names if name.startswith(("tokenizer", "training_args"))}
    resumed = train(**course)
    assert "\nresumed from step 5\n" in resumed.stdout
    assert resumed.results == pytest.approx(train(**course).results, rel=1e-6)


def test_as_many_checkpoints_are_kept_as_one_wants(train: Any, stop_after: Any, tmp_path: Path) -> None:
    stop_after(4)
    with pytest.raises(SystemExit):
        train(max_steps=8, save_steps=1, save_total_limit=2, checkpoint_dir=tmp_path / "kept")
    assert sorted(entry.name for entry in (tmp_path / "kept").iterdir()) == ["checkpoint-4", "checkpoint-5"]


def test_only_the_same_run_goes_on_from_a_checkpoint(train: Any, stopped: dict[str, Any]) -> None:
    other = train(**stopped, learning_rate="1e-3")
    told = "starting anew: the checkpoint of step 5 is of another run (learning_rate 0.0002, now 0.001)"
    assert told in other.stdout
    assert "\nresumed" not in other.stdout
    assert other.code == 0
    assert not (stopped["output_dir"] / ".checkpoints").exists()


def test_other_data_of_the_same_name_starts_anew(train: Any, stop_after: Any, tmp_path: Path) -> None:
    tiny_model.build_data(tmp_path / "data")
    settings = {"on": tmp_path / "data", "max_steps": 6, "save_steps": 2, "checkpoint_dir": tmp_path / "kept"}
    stop_after(2)
    with pytest.raises(SystemExit):
        train(**settings)
    write_jsonl(tmp_path / "data" / "train.jsonl", tiny_model.split_rows()[0][1:])
    run = train(**settings)
    assert "is of another run (dataset 'sha256:" in run.stdout
    assert not (tmp_path / "kept").exists()


def test_places_and_what_only_looks_do_not_tell_runs_apart(train: Any, stopped: dict[str, Any], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (stopped["output_dir"] / ".checkpoints").rename(elsewhere)
    run = train(**stopped, checkpoint_dir=elsewhere, save_total_limit=3, sample_prompt="What?")
    assert "\nresumed from step 5\n" in run.stdout
    assert not elsewhere.exists()


@pytest.mark.parametrize("mark", [None, "", "{", "[]", '{"identity": null}'])
def test_half_a_checkpoint_is_not_resumed_from(train: Any, stopped: dict[str, Any], mark: str | None) -> None:
    file = stopped["output_dir"] / ".checkpoints" / "checkpoint-5" / "checkpoint.json"
    file.unlink()
    if mark is not None:
        file.write_text(mark, encoding="utf-8")
    run = train(**stopped)
    assert run.code == 0
    assert "\nresumed" not in run.stdout
    assert not (stopped["output_dir"] / ".checkpoints").exists()


def test_a_checkpoint_that_cannot_be_stored_does_not_end_the_training(train: Any, tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    place.mkdir()
    (place / "checkpoint-2").write_text("in the way", encoding="utf-8")
    run = train(max_steps=3, save_steps=2, checkpoint_dir=place)
    assert run.code == 0
    assert "The checkpoint of step 2 could not be saved, training goes on" in run.stdout
    assert "The checkpoints could not be removed, the result is complete" in run.stdout


# --- longer runs --------------------------------------------------------------------------------------------

RUNG = {"save_steps": 4, "keep_checkpoints": "true", "lr_scheduler_type": "constant", "warmup_ratio": 0}


def test_a_run_with_more_steps_goes_on_from_a_shorter_one(train: Any, tmp_path: Path) -> None:
    """As hyperband has it, with max_steps as its resource: two rungs cost as much as the longer one."""
    shared = {"checkpoint_dir": tmp_path / "shared", "learning_rate": "1e-3", **RUNG}
    train(max_steps=6, **shared)
    longer = train(max_steps=12, **shared)
    assert "\nresumed from step 6\n" in longer.stdout
    whole = train(max_steps=12, **(shared | {"checkpoint_dir": tmp_path / "alone"}))
    assert "\nresumed" not in whole.stdout
    assert longer.results["eval_loss"] == pytest.approx(whole.results["eval_loss"], rel=1e-6)


def test_runs_that_share_a_place_for_checkpoints_leave_those_of_others_alone(train: Any, tmp_path: Path) -> None:
    shared = {"checkpoint_dir": tmp_path / "shared", **RUNG}
    for rate in ("1e-3", "2e-3"):
        train(max_steps=4, learning_rate=rate, **shared)
    again = train(max_steps=8, learning_rate="1e-3", **shared)
    assert "\nresumed from step 4\n" in again.stdout
    assert sorted(entry.name for entry in (tmp_path / "shared").glob("*/*")) == ["checkpoint-4", "checkpoint-8"]


def test_a_run_of_the_same_length_is_not_taken_for_trained(train: Any, tmp_path: Path) -> None:
    shared = {"checkpoint_dir": tmp_path / "shared", **RUNG}
    first, again = (train(max_steps=4, **shared) for _ in range(2))
    assert "\nresumed" not in again.stdout
    assert again.results == pytest.approx(first.results, rel=1e-6)
