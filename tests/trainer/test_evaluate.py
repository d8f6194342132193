"""``evaluate``: the loss of an adapter, or of a model, as a training reports it; what makes losses comparable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from launchers import TWO_PROCESSES
from tiny_files import write_jsonl

EVALUATE = ("evaluate",)
TUNED = {"max_steps": 20, "learning_rate": "5e-3", "warmup_ratio": 0.1}


def fingerprint(run: Any) -> str:
    assert run.code == 0, run.stderr
    text = run.termination["manifest"]["evaluation"]["fingerprint"]
    assert len(text) == 16
    return str(text)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_has_the_loss_that_its_training_reported(train: Any, tmp_path: Path, dtype: str) -> None:
    trained = train(output_dir=tmp_path / "adapter", evaluate_base_model="true", dtype=dtype, **TUNED)
    judged = train(mode=EVALUATE, adapter=tmp_path / "adapter", dtype=dtype, per_device_eval_batch_size=5)
    base = train(mode=EVALUATE, dtype=dtype)
    noise = 1e-6 if dtype == "float32" else 1e-3
    assert judged.metrics["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], rel=noise)
    assert base.metrics["eval_loss"] == pytest.approx(trained.metrics["base_eval_loss"], rel=noise)
    assert judged.termination["artifact_uri"] == str(tmp_path / "adapter")
    assert base.termination["artifact_uri"] is None
    assert fingerprint(trained) == fingerprint(judged) == fingerprint(base)


@pytest.mark.parametrize("module", ["norm", "embed_tokens"])
def test_modules_that_were_trained_as_a_whole_are_not_rounded(train: Any, tmp_path: Path, module: str) -> None:
    trained = train(output_dir=tmp_path / "adapter", lora_modules_to_save=module, dtype="bfloat16", **TUNED)
    judged = train(mode=EVALUATE, adapter=tmp_path / "adapter", dtype="bfloat16")
    assert judged.metrics["eval_loss"] == trained.metrics["eval_loss"]


def test_the_manifest_tells_what_a_result_came_from(train: Any, model: Path, data: Path, tmp_path: Path) -> None:
    trained = train(output_dir=tmp_path / "adapter", max_steps=2, lora_r=4, sample_prompt="What?")
    manifest = trained.termination["manifest"]
    assert manifest == {
        "base_model": str(model),
        "base_model_revision": None,
        "dataset": str(data),
        "dataset_version": manifest["dataset_version"],
        "parameters": {"max_steps": 2, "lora_r": 4, "dtype": "float32"},
        "rows": {"train": 48, "eval": 12},
        "steps": 2,
        "trained_tokens": 16 * 30,
        "trainer_version": "0.1.0",
        "evaluation": {"fingerprint": fingerprint(trained), "rows": 12},
        "data": manifest["data"],
        "servable": True,
        "unservable": [],
    }
    found = {"format": "prompt+completion", "dropped": {"rows": 0}, "tokens": {"train": 48 * 30, "eval": 12 * 30}}
    assert manifest["data"].items() >= found.items()
    result = json.loads((tmp_path / "adapter" / "result.json").read_text(encoding="utf-8"))
    assert result["manifest"] == manifest
    judged = train(mode=EVALUATE, adapter=tmp_path / "adapter").termination["manifest"]
    nothing_trained = {"rows": {"train": 0, "eval": 12}, "steps": 0, "trained_tokens": 0}
    data = manifest["data"] | {"tokens": {"train": 0, "eval": 12 * 30}}
    assert judged == manifest | nothing_trained | {"parameters": {"dtype": "float32"}, "data": data}


def test_the_version_of_the_data_changes_with_its_content_only(train: Any, tmp_path: Path) -> None:
    def version(rows: Any, name: str) -> str:
        folder = tmp_path / name
        write_jsonl(folder / "train.jsonl", rows)
        return str(train(mode=EVALUATE, on=folder).termination["manifest"]["dataset_version"])

    rows = tiny_model.rows()
    assert version(rows, "here") == version(rows, "there")
    assert version(rows[1:], "less") != version(rows, "again")


def test_losses_on_the_same_tokens_in_any_order_compare_and_no_others(train: Any, tmp_path: Path) -> None:
    learned, held_out = tiny_model.split_rows()
    write_jsonl(tmp_path / "train.jsonl", learned[:4])
    write_jsonl(tmp_path / "eval.jsonl", reversed(held_out))
    same = train(mode=EVALUATE)
    assert fingerprint(same) == fingerprint(train(mode=EVALUATE, max_length=512))
    reordered = train(mode=EVALUATE, on=tmp_path, per_device_eval_batch_size=3)
    assert fingerprint(same) == fingerprint(reordered)
    assert same.metrics["eval_loss"] == pytest.approx(reordered.metrics["eval_loss"], rel=1e-5)
    others = [train(mode=EVALUATE, **change) for change in ({"max_eval_samples": 11}, {"max_length": 26})]
    assert len({fingerprint(run) for run in (same, *others)}) == 3


def test_two_processes_evaluate_as_one(command: Any, train: Any, model: Path, data: Path) -> None:
    given = ["evaluate", "--model_name_or_path", str(model), "--dataset_name", str(data), "--dtype", "float32"]
    two = command(given, launcher=TWO_PROCESSES)
    assert two.code == 0, two.stderr
    one = train(mode=EVALUATE)
    assert two.metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-6)
    assert fingerprint(two) == fingerprint(one)


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_settings_of_a_training_are_refused_by_name(train: Any) -> None:
    run = train(mode=EVALUATE, learning_rate="1e-3", output_dir="/out")
    assert run.code == 2
    assert "The settings have 2 mistakes" in run.stderr
    assert "`--learning_rate`='1e-3' has no part in an evaluation" in run.stderr
    assert "`--output_dir`='/out'" in run.stderr


def test_an_adapter_is_refused_by_a_training(train: Any) -> None:
    run = train(adapter="/adapter")
    assert run.code == 2
    assert "`--adapter` is of `evaluate` only" in run.stderr


def test_a_folder_that_holds_no_adapter_is_refused(train: Any, data: Path, tmp_path: Path) -> None:
    run = train(mode=EVALUATE, adapter=data)
    assert run.code == 2
    assert "`--adapter`" in run.stderr
    assert "has no adapter_config.json, no adapter_model.safetensors" in run.stderr
    assert "does not exist" in train(mode=EVALUATE, adapter=tmp_path / "none").stderr


def test_an_adapter_that_is_cut_short_is_named(train: Any, tmp_path: Path) -> None:
    train(output_dir=tmp_path / "adapter", max_steps=1)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    run = train(mode=EVALUATE, adapter=tmp_path / "adapter")
    assert run.code == 2, run.stderr
    assert f"`--adapter`='{tmp_path}/adapter'" in run.stderr


def test_an_adapter_of_another_model_is_refused(train: Any, tmp_path: Path) -> None:
    train(output_dir=tmp_path / "adapter", max_steps=1)
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "r": 3}), encoding="utf-8")
    run = train(mode=EVALUATE, adapter=tmp_path / "adapter")
    assert run.code == 2
    assert "does not fit" in run.stderr
