"""What a run does, on the tiny model, in this process."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

QUESTION = "What does the dog eat?"
ANSWER = "The dog does eat milk."
TUNED = {"max_steps": 80, "learning_rate": "5e-3", "warmup_ratio": 0.1}


def test_a_run_learns_reports_and_saves(train: Any, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "adapters" / "first"
    run = train(evaluate_base_model="true", output_dir=output, **TUNED)
    assert run.code == 0, run.stderr
    assert run.metrics["eval_loss"][0] < run.metrics["base_eval_loss"][0] / 2
    assert len(run.metrics["train_loss"]) == len(run.metrics["epoch"]) == 10
    assert run.termination["status"] == "succeeded"
    assert run.termination["artifact_uri"] == str(output)
    assert run.termination["metrics"]["eval_loss"] == run.metrics["eval_loss"][-1]

    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert result["parameters"]["learning_rate"] == 0.005
    assert result["manifest"]["rows"] == {"train": 48, "eval": 12}
    config = json.loads((output / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(model)
    names = {file.name for file in output.iterdir()}
    assert {"adapter_model.safetensors", "tokenizer.json", "result.json"} <= names
    assert "training_args.bin" not in names
    assert [entry.name for entry in output.parent.iterdir()] == ["first"]


def test_the_tuned_model_gives_the_learned_answer_and_stops(train: Any) -> None:
    run = train(sample_prompt=QUESTION, max_new_tokens=40, **TUNED)
    samples = run.termination["samples"]
    assert samples["prompt"] == QUESTION
    assert samples["before"] != samples["after"] == ANSWER


# peft asks transformers for an attribute under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_saved_adapter_gives_the_same_answer_when_it_is_loaded_again(
    train: Any, model: Path, tmp_path: Path
) -> None:
    train(output_dir=tmp_path / "adapter", **TUNED)
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    from llmtune_trainer.generate import complete

    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert complete(loaded, tokenizer, QUESTION, 40) == ANSWER


def test_a_second_run_replaces_the_result_of_the_first(train: Any, tmp_path: Path) -> None:
    output = tmp_path / "volume"
    output.mkdir()
    (output / "lost+found").mkdir()
    for steps in (1, 2):
        assert train(max_steps=steps, output_dir=output).code == 0
        assert json.loads((output / "result.json").read_text(encoding="utf-8"))["manifest"]["steps"] == steps
    assert not [entry for entry in output.iterdir() if entry.name.startswith(".unfinished")]


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(train: Any) -> None:
    first, again, other = (train(max_steps=6, learning_rate="1e-3", seed=seed).metrics for seed in (1, 1, 2))
    assert first["eval_loss"] == pytest.approx(again["eval_loss"], abs=1e-4)
    assert first["train_loss"] == pytest.approx(again["train_loss"], abs=1e-4)
    assert first["eval_loss"] != pytest.approx(other["eval_loss"], abs=1e-4)


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_the_evaluation_loss_does_not_depend_on_the_batch_size(train: Any, batch: int) -> None:
    whole = train(max_steps=1, per_device_eval_batch_size=4).metrics["eval_loss"]
    assert train(max_steps=1, per_device_eval_batch_size=batch).metrics["eval_loss"] == pytest.approx(whole, rel=1e-5)


def test_accumulated_batches_train_as_one_large_batch(train: Any) -> None:
    runs = [
        train(max_steps=4, learning_rate="1e-3", per_device_train_batch_size=rows, gradient_accumulation_steps=steps)
        for rows, steps in ((4, 1), (1, 4))
    ]
    one, accumulated = (run.metrics["eval_loss"] for run in runs)
    assert one == pytest.approx(accumulated, rel=1e-4)


def test_bfloat16_weights_train_too(train: Any) -> None:
    losses = train(dtype="bfloat16", evaluate_base_model="yes", sample_prompt=QUESTION, **TUNED).metrics
    assert losses["eval_loss"][-1] < losses["base_eval_loss"][0] / 2


def test_evaluating_every_few_steps_reports_each_point_once(train: Any) -> None:
    run = train(max_steps=6, eval_steps=2)
    assert len(run.metrics["eval_loss"]) == 3
    assert run.termination["metrics"]["eval_loss"] == run.metrics["eval_loss"][-1]


def test_smaller_shares_of_the_data_are_judged_by_the_same_rows(train: Any, tiny: ModuleType, tmp_path: Path) -> None:
    everything = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.rows())
    settings = {"max_steps": 1, "eval_fraction": 0.2, "evaluate_base_model": "true", "on": everything}
    small, large = (train(train_fraction=share, **settings).metrics["base_eval_loss"] for share in (0.1, 1))
    assert small == large


# --- formats ------------------------------------------------------------------------------------------------


def _as_text(row: dict[str, str]) -> dict[str, Any]:
    return {"text": f"{row['prompt']} {row['completion']}"}


def _as_messages(row: dict[str, str]) -> dict[str, Any]:
    turns = (("user", row["prompt"]), ("assistant", row["completion"]))
    return {"messages": [{"role": role, "content": content} for role, content in turns], "source": "test"}


def _write_jsonl(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def _write_json(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")


def _write_csv(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def _write_saved(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    from datasets import Dataset, DatasetDict, load_from_disk

    others = dict(load_from_disk(str(folder / "tree"))) if (folder / "tree").exists() else {}
    splits = DatasetDict({name: Dataset.from_list(other.to_list()) for name, other in others.items()})
    splits[split] = Dataset.from_list(rows)
    splits.save_to_disk(str(folder / "tree"))


@pytest.mark.parametrize(
    ("write", "reshape", "format_name"),
    [
        (_write_jsonl, dict, "prompt+completion"),
        (_write_csv, dict, "prompt+completion"),
        (_write_json, _as_messages, "messages"),
        (_write_parquet, _as_messages, "messages"),
        (_write_parquet, _as_text, "text"),
        (_write_csv, _as_text, "text"),
        (_write_saved, _as_messages, "messages"),
    ],
)
def test_every_format_trains_from_every_kind_of_file(
    train: Any,
    tiny: ModuleType,
    tmp_path: Path,
    write: Callable[[Path, str, list[dict[str, Any]]], None],
    reshape: Callable[[dict[str, str]], dict[str, Any]],
    format_name: str,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in zip(("train", "test"), tiny.split_rows(), strict=True):
        write(folder, split, [reshape(row) for row in rows])
    location = folder / "tree" if write is _write_saved else folder
    run = train(on=location, max_steps=1)
    assert run.code == 0, run.stderr
    assert f"rows: 48 to train on, 12 to evaluate, format {format_name}" in run.stdout
    assert len(run.metrics["eval_loss"]) == 1


def test_messages_and_prompts_of_the_same_text_have_the_same_loss(train: Any, tiny: ModuleType, tmp_path: Path) -> None:
    for split, rows in zip(("train", "test"), tiny.split_rows(), strict=True):
        _write_jsonl(tmp_path, split, [_as_messages(row) for row in rows])
    assert train(on=tmp_path, max_steps=2).metrics["eval_loss"] == train(max_steps=2).metrics["eval_loss"]


# --- what goes wrong ----------------------------------------------------------------------------------------

HOPELESS = {"learning_rate": "1e30", "max_steps": 4, "warmup_ratio": 0, "lr_scheduler_type": "constant"}


def test_a_diverged_run_fails_by_default(train: Any, tmp_path: Path) -> None:
    run = train(output_dir=tmp_path / "adapter", **HOPELESS)
    assert run.code == 1
    assert "no longer a finite number" in run.termination["error"]
    assert "lower the learning rate" in run.termination["error"]
    assert "eval_loss" not in run.metrics
    assert not (tmp_path / "adapter").exists()


def test_a_diverged_run_can_be_reported_as_a_very_bad_one(train: Any, tmp_path: Path) -> None:
    run = train(output_dir=tmp_path / "adapter", on_divergence="report", sample_prompt=QUESTION, **HOPELESS)
    assert run.code == 0
    assert run.metrics["eval_loss"] == [1e9]
    assert run.termination["metrics"] == {"eval_loss": 1e9}
    assert run.termination["artifact_uri"] is None
    assert not (tmp_path / "adapter").exists()


def test_prompts_that_leave_no_room_for_a_completion_are_refused(train: Any) -> None:
    run = train(max_length=8)
    assert run.code == 2
    assert "every prompt fills --max_length 8" in run.stderr


def test_a_mistake_in_the_libraries_words_is_passed_on(train: Any) -> None:
    run = train(lora_target_modules="no_such_layer", max_steps=1)
    assert run.code == 1
    assert run.termination["status"] == "failed"
    assert "no_such_layer" in run.termination["error"]
    assert "Traceback" in run.stderr
