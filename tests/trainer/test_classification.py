"""``--task classification``: a tiny BERT and a tiny Llama learn classes, in this process."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tiny_encoder
from launchers import TWO_PROCESSES
from tiny_files import write_jsonl

EVALUATE = ("evaluate",)
CLASSES = ["negative", "neutral", "positive"]
LEARNS = {"max_steps": 100, "learning_rate": "3e-3", "warmup_ratio": 0.1}
DECODER_LEARNS = {**LEARNS, "learning_rate": "1e-2"}
# So short that not all is right yet, and every metric is another number.
BEGINS = {"max_steps": 12, "learning_rate": "5e-3"}
ADAPTER = {"use_peft": "true"}
WHOLE_MODEL = {"use_peft": "false"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.build_model(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.build_data(tmp_path_factory.mktemp("sentences"))


@pytest.fixture
def classify(train: Any, encoder: Path, sentences: Path) -> Any:
    return partial(train, of=encoder, on=sentences, task="classification")


def last(run: Any) -> dict[str, float]:
    metrics: dict[str, float] = run.last("eval_loss", "eval_accuracy", "eval_f1")
    return metrics


# --- what is learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_an_encoder_learns_to_classify(classify: Any, weights: dict[str, str]) -> None:
    run = classify(evaluate_base_model="true", **weights, **LEARNS)
    metrics = last(run)
    assert metrics["eval_loss"] < run.metrics["base_eval_loss"][0] / 2
    assert metrics["eval_accuracy"] >= 0.9 > run.metrics["base_eval_accuracy"][0]
    assert metrics["eval_f1"] >= 0.85 > run.metrics["base_eval_f1"][0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_causal_language_model_learns_to_classify_by_the_last_token(
    classify: Any, model: Path, tmp_path: Path, dtype: str
) -> None:
    metrics = last(classify(of=model, output_dir=tmp_path / "adapter", dtype=dtype, **DECODER_LEARNS))
    assert metrics["eval_accuracy"] >= 0.9
    judged = last(classify(of=model, mode=EVALUATE, adapter=tmp_path / "adapter", dtype=dtype))
    assert judged == pytest.approx(metrics, rel=1e-6 if dtype == "float32" else 2e-2)


def test_a_model_without_a_padding_token_gets_one(classify: Any, model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / "model").mkdir(exist_ok=True)
        text = file.read_bytes()
        if file.name in {"config.json", "tokenizer_config.json"}:
            content = json.loads(text)
            content.pop("pad_token", None)
            content.pop("pad_token_id", None)
            text = json.dumps(content).encode()
        (tmp_path / "model" / file.name).write_bytes(text)
    assert last(classify(of=tmp_path / "model", **DECODER_LEARNS))["eval_accuracy"] >= 0.9


def test_accumulated_batches_train_as_one_large_batch(classify: Any, model: Path) -> None:
    course = {"of": model, "max_steps": 4, "learning_rate": "1e-3", "label_smoothing_factor": 0.1}
    one, accumulated = (
        classify(per_device_train_batch_size=rows, gradient_accumulation_steps=batches, **course)
        for rows, batches in ((8, 1), (1, 8))
    )
    assert last(accumulated) == pytest.approx(last(one), rel=1e-4)
    assert accumulated.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-4)


# --- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an attribute under its old name
@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_the_metrics_are_those_of_the_saved_model_row_by_row(
    classify: Any, encoder: Path, tmp_path: Path, weights: dict[str, str]
) -> None:
    told = last(classify(output_dir=tmp_path / "out", per_device_eval_batch_size=4, **weights, **BEGINS))
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if weights is WHOLE_MODEL:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
        assert list(model.config.label2id) == CLASSES
    else:
        torch.manual_seed(7)  # what the adapter does not hold is other than it was
        base = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=3)
        model = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = tiny_encoder.split_rows()[1]
    with torch.no_grad():
        logits = [model(**tokenizer(row["text"], return_tensors="pt")).logits[0].double() for row in rows]
    right = [CLASSES.index(row["label"]) for row in rows]
    guessed = [int(numbers.argmax()) for numbers in logits]
    losses = [-float(numbers.log_softmax(0)[label]) for numbers, label in zip(logits, right, strict=True)]
    assert told["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert told["eval_accuracy"] == pytest.approx(share(guessed, right))
    assert told["eval_f1"] == pytest.approx(macro_f1(guessed, right))
    assert 0 < told["eval_f1"] != told["eval_accuracy"] < 1


def share(guessed: Sequence[int], right: Sequence[int]) -> float:
    return sum(map(int.__eq__, guessed, right)) / len(right)


def macro_f1(guessed: Sequence[int], right: Sequence[int]) -> float:
    """As it is defined, over the classes that are there: the harmonic mean of precision and recall."""
    scores = []
    for number in {*guessed, *right}:
        hits = sum(1 for pair in zip(guessed, right, strict=True) if pair == (number, number))
        precision, recall = (hits / max(1, seen.count(number)) for seen in (guessed, right))
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return math.fsum(scores) / len(scores)


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_evaluate_gives_the_same_numbers_in_batches_of_any_size(
    classify: Any, tmp_path: Path, weights: dict[str, str]
) -> None:
    trained = last(classify(output_dir=tmp_path / "out", **weights, **BEGINS))
    for rows in (1, 5, 14):
        judged = last(classify(mode=EVALUATE, adapter=tmp_path / "out", per_device_eval_batch_size=rows))
        assert judged == pytest.approx(trained, rel=1e-5)


def test_two_processes_train_and_evaluate_as_one(command: Any, classify: Any, model: Path, sentences: Path) -> None:
    # Of 56 rows the last step of an epoch has six, and of 14 the last evaluation has two: neither is filled up.
    course = {"num_train_epochs": 2, "learning_rate": "1e-3", "per_device_eval_batch_size": 4}
    one = classify(of=model, per_device_train_batch_size=10, **course)
    given = {"model_name_or_path": model, "dataset_name": sentences, "task": "classification", "dtype": "float32"}
    flags = [f"--{name}={value}" for name, value in {**given, **course, "per_device_train_batch_size": 5}.items()]
    two = command(flags, TWO_PROCESSES)
    assert last(two) == pytest.approx(last(one), rel=1e-4)
    assert two.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-4)


def test_a_diverged_run_is_the_worst_whether_a_metric_is_minimised_or_maximised(classify: Any) -> None:
    hopeless = {"learning_rate": "1e30", "max_steps": 4, "warmup_ratio": 0, "lr_scheduler_type": "constant"}
    worst = {"eval_loss": 1e9, "eval_accuracy": 0.0, "eval_f1": 0.0}
    assert last(classify(on_divergence="report", **hopeless)) == worst


# --- classes and rows ----------------------------------------------------------------------------------------------


def relabelled(folder: Path, names: dict[str, Any]) -> Path:
    for split, rows in zip(("train", "eval"), tiny_encoder.split_rows(), strict=True):
        write_jsonl(folder / f"{split}.jsonl", [{**row, "label": names[row["label"]]} for row in rows])
    return folder


def saved_with_class_names(folder: Path) -> Path:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["positive", "negative", "neutral"])})
    splits = zip(("train", "test"), tiny_encoder.split_rows(), strict=True)
    DatasetDict({name: Dataset.from_list(rows, features) for name, rows in splits}).save_to_disk(str(folder))
    return folder


def classes_of(run: Any, folder: Path) -> dict[str, int]:
    assert run.code == 0, run.stderr
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {int(number): name for number, name in config["id2label"].items()} == {
        number: name for name, number in config["label2id"].items()
    }
    return dict(config["label2id"])


def test_classes_are_found_in_the_data(classify: Any, tmp_path: Path) -> None:
    short = {"max_steps": 1, "output_dir": tmp_path / "out", **WHOLE_MODEL}
    assert classes_of(classify(**short), tmp_path / "out") == {name: number for number, name in enumerate(CLASSES)}
    numbers = relabelled(tmp_path / "numbers", {"negative": 10, "neutral": 9, "positive": 2})
    assert classes_of(classify(on=numbers, **short), tmp_path / "out") == {"2": 0, "9": 1, "10": 2}
    named = saved_with_class_names(tmp_path / "named")
    assert {*classes_of(classify(on=named, **short), tmp_path / "out")} == {*CLASSES}


def test_a_row_may_have_several_classes_or_none(classify: Any, tmp_path: Path) -> None:
    words = {"tasty": "food", "loud": "sound", "cheap": "price"}
    mixes = [[word for number, word in enumerate(words) if mask >> number & 1] for mask in range(8)]
    rows = [
        {"text": f"the {thing} was {' and '.join(mix)}", "label": [words[word] for word in mix]}
        for thing in ("tea", "film", "room", "game", "soup", "talk")
        for mix in mixes
    ]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows[:-8])
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows[-8:])
    run = classify(
        on=tmp_path / "data", output_dir=tmp_path / "out", evaluate_base_model="true", **WHOLE_MODEL, **LEARNS
    )
    metrics = last(run)
    assert metrics["eval_loss"] < run.metrics["base_eval_loss"][0] / 2
    assert metrics["eval_accuracy"] >= 0.75
    assert classes_of(run, tmp_path / "out") == {"food": 0, "price": 1, "sound": 2}


def test_pairs_of_texts_are_classified_together(classify: Any, tmp_path: Path) -> None:
    rows = [
        {"premise": f"the {thing}", "hypothesis": f"it was {word}", "label": label}
        for thing in tiny_encoder.THINGS
        for label, words in tiny_encoder.WORDS.items()
        for word in words
    ]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows[::2])
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows[1::2])
    assert last(classify(on=tmp_path / "data", **LEARNS))["eval_accuracy"] >= 0.9


def test_long_rows_are_cut_to_the_positions_that_the_model_has(classify: Any, sentences: Path, tmp_path: Path) -> None:
    rows = [{"text": "good " * 40, "label": "positive"}, {"text": "awful", "label": "negative"}]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows)
    assert last(classify(on=tmp_path / "data", max_steps=1))["eval_loss"] > 0


def test_rows_of_some_of_the_classes_are_judged_as_the_model_numbers_them(classify: Any, tmp_path: Path) -> None:
    rows = [row for row in tiny_encoder.split_rows()[1] if row["label"] != "neutral"]
    write_jsonl(tmp_path / "part" / "train.jsonl", rows)
    write_jsonl(tmp_path / "part" / "eval.jsonl", rows)
    for number, weights in enumerate((ADAPTER, WHOLE_MODEL)):
        where = tmp_path / f"trained-{number}"
        last(classify(output_dir=where, **weights, **LEARNS))
        assert last(classify(mode=EVALUATE, on=tmp_path / "part", adapter=where))["eval_accuracy"] >= 0.85
        other = relabelled(tmp_path / "other", {name: f"{name}!" for name in CLASSES})
        run = classify(mode=EVALUATE, on=other, adapter=where)
        assert run.code == 2
        assert "have the classes negative!, neutral!, positive!, and the model was trained to tell" in run.stderr


# --- durable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_a_resumed_run_ends_like_one_that_was_not_stopped(
    classify: Any, stop_after: Any, tmp_path: Path, weights: dict[str, str]
) -> None:
    course = {"num_train_epochs": 3, "learning_rate": "2e-3", "per_device_train_batch_size": 4, "save_steps": 5}
    whole = last(classify(output_dir=tmp_path / "whole", **weights, **course))
    stop_after(10)
    with pytest.raises(SystemExit):
        classify(output_dir=tmp_path / "out", **weights, **course)
    resumed = classify(output_dir=tmp_path / "out", **weights, **course)
    assert "resumed from step 1" in resumed.stdout
    assert last(resumed) == pytest.approx(whole, rel=1e-4)


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_data_of_one_class_is_refused(classify: Any, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"row {number}", "label": "same"} for number in range(20)])
    run = classify(on=data)
    assert run.code == 2
    assert "same" in run.stderr
    assert "Fix:" in run.stderr


def test_rows_of_another_task_are_refused(classify: Any, train: Any, data: Path, sentences: Path) -> None:
    for run in (classify(on=data), train(on=sentences, task="dpo")):
        assert run.code == 2
        assert "Fix:" in run.stderr
        assert "label" in run.stderr


def test_a_model_that_has_learned_no_classes_is_not_judged(classify: Any) -> None:
    run = classify(mode=EVALUATE)
    assert run.code == 2
    assert "has no trained head" in run.stderr
