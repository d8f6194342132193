"""``--use_peft false`` trains all weights; ``--load_in_4bit true`` holds the frozen ones in four bits."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

EVALUATE = ("evaluate",)
WHOLE_MODEL = {"use_peft": "false"}
TUNED = {"max_steps": 80, "learning_rate": "2e-3", "warmup_ratio": 0.1}
QUESTION = "What does the dog eat?"
ANSWER = "The dog does eat milk."


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_weights_learn_and_the_saved_model_is_an_ordinary_one(
    train: Any, model: Path, tmp_path: Path, dtype: str
) -> None:
    output = tmp_path / "model"
    run = train(output_dir=output, evaluate_base_model="true", dtype=dtype, **WHOLE_MODEL, **TUNED)
    assert run.code == 0, run.stderr
    assert run.metrics["eval_loss"][-1] < run.metrics["base_eval_loss"][0] / 2
    assert run.termination["artifact_uri"] == str(output)
    assert not (output / "adapter_config.json").exists()
    assert not [file.name for file in output.iterdir() if file.suffix in {".bin", ".pt"} or "checkpoint" in file.name]
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmtune_trainer.generate import complete

    before, after = (load_file(folder / "model.safetensors") for folder in (model, output))
    assert before.keys() == after.keys()
    assert all(not before[name].equal(after[name]) for name in before)
    loaded = AutoModelForCausalLM.from_pretrained(output, dtype="float32")
    assert complete(loaded, AutoTokenizer.from_pretrained(output), QUESTION, 40) == ANSWER


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_saved_model_has_the_loss_that_its_training_reported(train: Any, tmp_path: Path, dtype: str) -> None:
    trained = train(output_dir=tmp_path / "model", max_steps=10, learning_rate="1e-3", dtype=dtype, **WHOLE_MODEL)
    for place in ("adapter", "of"):
        judged = train(mode=EVALUATE, dtype=dtype, per_device_eval_batch_size=5, **{place: tmp_path / "model"})
        assert judged.code == 0, judged.stderr
        # As a model to be tuned it has its frozen weights in the type that was asked for.
        noise = 1e-2 if (dtype, place) == ("bfloat16", "of") else 1e-3 if dtype == "bfloat16" else 1e-6
        assert judged.metrics["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], rel=noise)
        fingerprints = {run.termination["manifest"]["evaluation"]["fingerprint"] for run in (trained, judged)}
        assert len(fingerprints) == 1


def test_small_steps_of_bfloat16_weights_are_not_lost_in_rounding(train: Any) -> None:
    """A weight of 0.2 in bfloat16 has no neighbour nearer than a thousandth, many steps of this size away."""
    run = train(max_steps=20, learning_rate="1e-5", evaluate_base_model="true", dtype="bfloat16", **WHOLE_MODEL)
    exact = train(max_steps=20, learning_rate="1e-5", evaluate_base_model="true", **WHOLE_MODEL)
    gains = [each.metrics["base_eval_loss"][0] - each.metrics["eval_loss"][-1] for each in (run, exact)]
    assert gains[0] == pytest.approx(gains[1], rel=0.2)
    assert gains[1] > 0


@pytest.mark.parametrize(
    "settings",
    [{"load_in_4bit": "true"}, {"load_in_8bit": "true"}, {"lora_modules_to_save": "norm"}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_trained_beside_frozen_bfloat16_weights_is_float32(
    train: Any, tmp_path: Path, settings: dict[str, str]
) -> None:
    """Whatever the libraries make it; the first steps of a warm-up would be lost."""
    run = train(output_dir=tmp_path / "adapter", max_steps=1, dtype="bfloat16", **settings)
    assert run.code == 0, run.stderr
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {str(each.dtype) for each in weights.values()} == {"torch.float32"}


def test_attention_that_takes_no_float32_takes_all_of_a_run(train: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """FlashAttention needs a GPU. transformers gives it what it is given, or what autocast would make of it."""
    from torch import bfloat16, is_autocast_enabled
    from torch.nn import functional

    attend, calls = functional.scaled_dot_product_attention, []

    def flash(query: Any, *others: Any, **options: Any) -> Any:
        assert query.dtype == bfloat16 or is_autocast_enabled(query.device.type)
        calls.append(query)
        return attend(query, *others, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", flash)
    output = tmp_path / "model"
    run = train(
        max_steps=1,
        dtype="bfloat16",
        sample_prompt=QUESTION,
        evaluate_base_model=True,
        output_dir=output,
        **WHOLE_MODEL,
    )
    assert run.code == 0, run.stderr
    assert run.termination["samples"].keys() == {"prompt", "before", "after"}
    assert train(mode=EVALUATE, dtype="bfloat16", adapter=output).code == 0
    assert len(calls) > 100


def test_a_resumed_run_ends_like_one_that_was_not_stopped(train: Any, stop_after: Any, tmp_path: Path) -> None:
    course = {"num_train_epochs": 3, "learning_rate": "1e-3", "per_device_train_batch_size": 4, "save_steps": 5}
    whole = train(output_dir=tmp_path / "whole", **WHOLE_MODEL, **course)
    stop_after(10)
    with pytest.raises(SystemExit):
        train(output_dir=tmp_path / "out", **WHOLE_MODEL, **course)
    resumed = train(output_dir=tmp_path / "out", **WHOLE_MODEL, **course)
    assert resumed.code == 0, resumed.stderr
    assert "resumed from step " in resumed.stdout
    assert resumed.metrics["eval_loss"][-1] == pytest.approx(whole.metrics["eval_loss"][-1], rel=1e-4)
    assert not (tmp_path / "out" / ".checkpoints").exists()


def test_settings_of_an_adapter_are_refused(train: Any) -> None:
    run = train(lora_r=8, lora_dropout=0.1, load_in_4bit="true", **WHOLE_MODEL)
    assert run.code == 2
    for flag in ("--lora_r", "--lora_dropout", "--load_in_4bit"):
        assert f"`{flag}`" in run.stderr


# --- four and eight bits -------------------------------------------------------------------------------------------


def _all_but_bitsandbytes(name: str, find: Any = importlib.util.find_spec) -> Any:
    return None if name == "bitsandbytes" else find(name)


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
@pytest.mark.parametrize("task", ["sft", "classification"])
def test_fewer_bits_without_bitsandbytes_are_refused_with_the_fix(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str, task: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", _all_but_bitsandbytes)
    rows = [{"text": f"row {number}", "label": "odd" if number % 2 else "even"} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train(task=task, on=tmp_path / "rows.jsonl", **{flag: "true"})
    assert run.code == 2
    assert f"`--{flag}`=true needs bitsandbytes" in run.stderr
    assert "Fix:" in run.stderr


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
def test_an_adapter_learns_on_few_bits_also_after_an_evaluation(train: Any, tmp_path: Path, flag: str) -> None:
    course = {flag: "true", "max_steps": 40, "learning_rate": "5e-3"}
    judged_first = train(evaluate_base_model="true", output_dir=tmp_path / "adapter", **course)
    assert judged_first.code == 0, judged_first.stderr
    (before,), (after,) = (judged_first.metrics[name] for name in ("base_eval_loss", "eval_loss"))
    assert after < before / 2
    assert train(**course).metrics["eval_loss"] == [pytest.approx(after, rel=1e-4)]
    judged = train(mode=EVALUATE, adapter=tmp_path / "adapter", **{flag: "true"})
    assert judged.metrics["eval_loss"] == [pytest.approx(after, rel=1e-2)]


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
def test_a_run_on_few_bits_is_resumed_and_merged(train: Any, stop_after: Any, tmp_path: Path, flag: str) -> None:
    course = {flag: "true", "max_steps": 8, "save_steps": 2, "learning_rate": "2e-3"}
    whole = train(output_dir=tmp_path / "whole", merge_adapter="true", **course)
    assert whole.code == 0, whole.stderr
    stop_after(4)
    with pytest.raises(SystemExit):
        train(output_dir=tmp_path / "out", merge_adapter="true", **course)
    resumed = train(output_dir=tmp_path / "out", merge_adapter="true", **course)
    assert "\nresumed from step 5\n" in resumed.stdout
    assert resumed.results == pytest.approx(whole.results, rel=1e-4)
    # In whole numbers again, to which the adapter is as good as to those that were rounded.
    merged = train(mode=EVALUATE, of=tmp_path / "out" / "merged")
    assert merged.metrics["eval_loss"] == [pytest.approx(resumed.metrics["eval_loss"][-1], rel=0.1)]
