"""What must not change the result of a training, through the command line: the same rows give the same losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from launchers import TWO_PROCESSES
from tiny_files import write_jsonl

QUESTION = "What does the dog eat?"
LEARNING = {"learning_rate": "2e-3", "warmup_ratio": 0.1}


def losses(run: Any) -> dict[str, list[float]]:
    assert run.code == 0, run.stderr
    return {name: run.metrics[name] for name in ("train_loss", "eval_loss")}


def agree(one: Any, other: Any, rel: float = 1e-4) -> None:
    first, second = losses(one), losses(other)
    for name, values in first.items():
        assert values == pytest.approx(second[name], rel=rel), name


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-one rows to train on, with answers of several lengths."""
    folder = tmp_path_factory.mktemp("uneven")
    learned, held_out = tiny_model.split_rows()
    longer = [{**row, "completion": row["completion"] + " So it is." * (at % 4)} for at, row in enumerate(learned[:41])]
    write_jsonl(folder / "train.jsonl", longer)
    write_jsonl(folder / "eval.jsonl", held_out)
    return folder


@pytest.mark.parametrize("layout", [{}, {"padding_free": "false"}], ids=["flat", "padded"])
def test_eight_batches_of_one_train_as_one_batch_of_eight(train: Any, uneven: Path, layout: dict[str, str]) -> None:
    """The answers differ in length, so means of batches would weigh their tokens otherwise."""
    runs = [
        train(on=uneven, per_device_train_batch_size=rows, gradient_accumulation_steps=8 // rows, **LEARNING, **layout)
        for rows in (8, 1)
    ]
    agree(*runs)


def test_flat_padded_and_packed_batches_train_alike(train: Any, uneven: Path) -> None:
    """All rows in each step, as packs are made up of other rows than batches. Rows that saw each other would differ."""
    steps = {"num_train_epochs": 4, "per_device_train_batch_size": 41, "logging_steps": 1, **LEARNING}
    flat, padded, packed = (
        train(on=uneven, **steps, **layout) for layout in ({}, {"padding_free": "false"}, {"packing": "true"})
    )
    agree(flat, padded)
    agree(flat, packed)
    assert flat.metrics["eval_token_accuracy"] == padded.metrics["eval_token_accuracy"]


@pytest.mark.parametrize(("batch", "layout"), [(1, {}), (5, {}), (12, {}), (5, {"padding_free": "false"})])
def test_the_evaluation_does_not_depend_on_its_batches(train: Any, batch: int, layout: dict[str, str]) -> None:
    whole = train(max_steps=1, per_device_eval_batch_size=4).metrics
    judged = train(max_steps=1, per_device_eval_batch_size=batch, **layout).metrics
    for name in ("eval_loss", "eval_perplexity", "eval_token_accuracy"):
        assert judged[name] == pytest.approx(whole[name], rel=1e-5)


@pytest.mark.timeout(240)
def test_two_processes_train_as_one_and_each_row_is_seen_once(
    command: Any, train: Any, model: Path, uneven: Path
) -> None:
    """Of forty-one rows in batches of eight the last has one for both, and none is left out or repeated."""
    course = {"num_train_epochs": 2, "learning_rate": "2e-3", "logging_steps": 1, "evaluate_base_model": "true"}
    given = {"model_name_or_path": model, "dataset_name": uneven, "dtype": "float32", **course}
    flags = [f"--{name}={value}" for name, value in {**given, "per_device_train_batch_size": 4}.items()]
    two = command(flags, launcher=TWO_PROCESSES)
    one = train(on=uneven, per_device_train_batch_size=8, **course)
    agree(two, one)
    assert two.metrics["base_eval_loss"] == pytest.approx(one.metrics["base_eval_loss"], rel=1e-5)
    assert "12 steps" in two.stdout
    tokens = 2 * one.termination["manifest"]["data"]["tokens"]["train"]
    assert two.termination["manifest"]["trained_tokens"] == one.termination["manifest"]["trained_tokens"] == tokens


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(train: Any) -> None:
    first, again, other = (losses(train(max_steps=6, seed=seed, **LEARNING)) for seed in (1, 1, 2))
    assert first == again
    assert first["eval_loss"] != pytest.approx(other["eval_loss"], abs=1e-4)


# peft asks transformers for an attribute under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_tuned_model_learns_to_stop(train: Any, tmp_path: Path) -> None:
    run = train(max_steps=80, learning_rate="5e-3", warmup_ratio=0.1, output_dir=tmp_path / "adapter")
    assert run.code == 0, run.stderr
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    tuned = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    asked = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tuned.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answer[-1] == tokenizer.eos_token_id
    with tuned.disable_adapter():
        untuned = tuned.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.eos_token_id not in untuned


def test_the_merged_model_has_the_loss_of_the_adapter(train: Any, tmp_path: Path) -> None:
    trained = train(max_steps=10, output_dir=tmp_path / "out", merge_adapter="true", **LEARNING)
    merged = train(mode=("evaluate",), of=tmp_path / "out" / "merged")
    assert merged.metrics["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], rel=1e-5)
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["manifest"]["servable"] is True
