"""``--task dpo``: the tiny Llama comes to prefer the chosen answers, in this process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from launchers import TWO_PROCESSES
from tiny_files import write_jsonl

EVALUATE = ("evaluate",)
LEARNS = {"max_steps": 30, "learning_rate": "2e-3", "warmup_ratio": 0.1}
BEGINS = {"max_steps": 4, "learning_rate": "1e-3"}
ADAPTER = {"use_peft": "true"}
WHOLE_MODEL = {"use_peft": "false"}
# At this beta all are of one size. Missing are aot and aot_unpaired, which sort each batch.
LOSSES = "sigmoid,hinge,ipo,exo_pair,nca_pair,robust,bco_pair,sppo_hard,apo_zero,apo_down,discopop,sft,sigmoid_norm"
EVERY_LOSS = {"loss_type": LOSSES, "beta": 1, "label_smoothing": 0.1}
Pair = dict[str, Any]


def pairs(rows: Iterable[dict[str, str]]) -> list[Pair]:
    """Return preferences that hold for all rows: the short answer is chosen."""
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": f"What? {row['completion']} So what?"}
        for row in rows
    ]


def write(folder: Path, shaped: Callable[[Pair], Pair] = dict) -> Path:
    for split, rows in zip(("train", "eval"), tiny_model.split_rows(), strict=True):
        write_jsonl(folder / f"{split}.jsonl", [shaped(pair) for pair in pairs(rows)])
    return folder


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("preferences"))


@pytest.fixture(scope="module")
def odd_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-one pairs to train on, with answers of several lengths."""
    folder = tmp_path_factory.mktemp("odd-pairs")
    learned, held_out = map(pairs, tiny_model.split_rows())
    longer = [{**pair, "chosen": pair["chosen"] + " So it is." * (at % 4)} for at, pair in enumerate(learned[:41])]
    write_jsonl(folder / "train.jsonl", longer)
    write_jsonl(folder / "eval.jsonl", held_out)
    return folder


@pytest.fixture
def prefer(train: Any, preferences: Path) -> Any:
    return partial(train, on=preferences, task="dpo")


def last(run: Any) -> dict[str, float]:
    metrics: dict[str, float] = run.last("eval_loss", "eval_rewards_accuracy", "eval_rewards_margin")
    return metrics


# --- what is learned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_the_chosen_answers_become_likelier_than_the_rejected_ones(prefer: Any, weights: dict[str, str]) -> None:
    run = prefer(evaluate_base_model="true", **weights, **LEARNS)
    metrics = last(run)
    # Before, the model is its own reference: no answer is likelier than in itself.
    assert run.metrics["base_eval_loss"] == [pytest.approx(math.log(2), rel=1e-6)]
    assert metrics["eval_loss"] < 0.4
    assert metrics["eval_rewards_accuracy"] == 1.0
    assert metrics["eval_rewards_margin"] > 0.5


def test_bfloat16_weights_train_too(prefer: Any) -> None:
    assert last(prefer(dtype="bfloat16", **LEARNS))["eval_rewards_accuracy"] >= 0.9


def test_the_librarys_hyperparameters_count(prefer: Any) -> None:
    usual, strong, other = (
        last(prefer(**settings, **BEGINS)) for settings in ({}, {"beta": 0.5}, {"loss_type": "ipo", "beta": 0.1})
    )
    assert len({metrics["eval_rewards_margin"] for metrics in (usual, strong, other)}) == 3


@pytest.mark.parametrize("strategy", ["sequential", "group_by_length", "batch_rebalance"])
def test_pairs_are_taken_in_any_order_that_the_library_knows(prefer: Any, strategy: str) -> None:
    assert last(prefer(train_sampling_strategy=strategy, **BEGINS))["eval_loss"] < math.log(2)


def test_the_adapters_dropout_works_although_trl_switches_dropout_off(prefer: Any) -> None:
    without, with_dropout = (last(prefer(lora_dropout=share, **BEGINS))["eval_loss"] for share in (0, 0.5))
    assert without != pytest.approx(with_dropout, rel=1e-6)


@pytest.mark.parametrize("losses", [{}, EVERY_LOSS], ids=["usual loss", "every loss"])
@pytest.mark.parametrize(("rows", "batches"), [(1, 8), (3, 2)])
def test_accumulated_batches_train_as_one_large_batch(
    prefer: Any, odd_pairs: Path, losses: dict[str, Any], rows: int, batches: int
) -> None:
    """The last step of a pass has fewer pairs than the others, and of these its last batch has fewer still."""
    course = {"on": odd_pairs, "num_train_epochs": 1, "learning_rate": "5e-4", "logging_steps": 1, **losses}
    one = prefer(per_device_train_batch_size=rows * batches, **course)
    accumulated = prefer(per_device_train_batch_size=rows, gradient_accumulation_steps=batches, **course)
    assert last(accumulated) == pytest.approx(last(one), rel=1e-4)
    assert accumulated.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-4)


@pytest.mark.timeout(240)
def test_two_processes_train_as_one_and_each_pair_is_seen_once(
    command: Any, prefer: Any, model: Path, odd_pairs: Path
) -> None:
    """Of forty-one pairs the last step has one: for the second process there is none."""
    course = {"num_train_epochs": 2, "learning_rate": "5e-4", "logging_steps": 1, **EVERY_LOSS}
    one = prefer(on=odd_pairs, per_device_train_batch_size=8, **course)
    given = {"model_name_or_path": model, "dataset_name": odd_pairs, "task": "dpo", "dtype": "float32"}
    flags = [f"--{name}={value}" for name, value in {**given, **course, "per_device_train_batch_size": 4}.items()]
    two = command(flags, TWO_PROCESSES)
    assert last(two) == pytest.approx(last(one), rel=1e-4)
    assert len(two.metrics["train_loss"]) == 12
    assert two.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-4)
    assert len({run.termination["manifest"]["trained_tokens"] for run in (one, two)}) == 1


# --- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an attribute under its old name
def test_the_metrics_are_those_of_the_saved_adapter_pair_by_pair(prefer: Any, model: Path, tmp_path: Path) -> None:
    learned, held_out = (pairs(rows) for rows in tiny_model.split_rows())
    # Of two pairs in three it is the other answer that is chosen, so that not all are right.
    turned = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in held_out]
    judged = [turned[at] if at % 3 else pair for at, pair in enumerate(held_out)]
    write_jsonl(tmp_path / "data" / "train.jsonl", learned)
    write_jsonl(tmp_path / "data" / "eval.jsonl", judged)
    course = {"output_dir": tmp_path / "adapter", "per_device_eval_batch_size": 5, "beta": 0.2, **BEGINS}
    told = last(prefer(on=tmp_path / "data", **course))
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    before = AutoModelForCausalLM.from_pretrained(model).eval()
    after = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(tmp_path / "adapter")).eval()

    def log_likelihood(of: Any, pair: Pair, answer: str) -> float:
        turns = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair[answer]}]
        opening = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
        tokens = tokenizer.apply_chat_template(turns, return_dict=False)
        assert tokens[: len(opening)] == opening
        with torch.no_grad():
            log_probs = of(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
        return float(sum(log_probs[at - 1, tokens[at]] for at in range(len(opening), len(tokens))))

    margins = []
    for pair in judged:
        gains = [
            log_likelihood(after, pair, answer) - log_likelihood(before, pair, answer)
            for answer in ("chosen", "rejected")
        ]
        margins.append(0.2 * (gains[0] - gains[1]))
    losses = [math.log1p(math.exp(-margin)) for margin in margins]
    assert told["eval_rewards_margin"] == pytest.approx(sum(margins) / 12, rel=1e-3)
    assert told["eval_loss"] == pytest.approx(sum(losses) / 12, rel=1e-4)
    assert told["eval_rewards_accuracy"] == pytest.approx(sum(margin > 0 for margin in margins) / 12)
    assert 0 < told["eval_rewards_accuracy"] < 1


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_evaluate_gives_the_same_numbers_in_batches_of_any_size(
    prefer: Any, tmp_path: Path, weights: dict[str, str]
) -> None:
    trained = last(prefer(output_dir=tmp_path / "out", **weights, **BEGINS))
    for rows in (1, 5, 12):
        judged = last(prefer(mode=EVALUATE, adapter=tmp_path / "out", per_device_eval_batch_size=rows))
        assert judged == pytest.approx(trained, rel=1e-4)


def test_a_model_without_an_adapter_prefers_nothing_to_itself(prefer: Any) -> None:
    nothing = {"eval_loss": math.log(2), "eval_rewards_accuracy": 0, "eval_rewards_margin": 0}
    assert last(prefer(mode=EVALUATE)) == pytest.approx(nothing)


def test_a_diverged_run_is_the_worst_whether_a_metric_is_minimised_or_maximised(prefer: Any) -> None:
    hopeless = {"learning_rate": "1e30", "max_steps": 4, "warmup_ratio": 0, "lr_scheduler_type": "constant"}
    worst = {"eval_loss": 1e9, "eval_rewards_accuracy": 0.0, "eval_rewards_margin": -1e9}
    assert last(prefer(on_divergence="report", **hopeless)) == worst


# --- rows ----------------------------------------------------------------------------------------------------------


def as_messages(pair: Pair) -> Pair:
    return {
        "prompt": [{"role": "user", "content": pair["prompt"]}],
        **{name: [{"role": "assistant", "content": pair[name]}] for name in ("chosen", "rejected")},
    }


def as_whole_conversations(pair: Pair) -> Pair:
    turns = as_messages(pair)
    return {name: turns["prompt"] + turns[name] for name in ("chosen", "rejected")}


def as_conversations_with_their_prompt(pair: Pair) -> Pair:
    return {"prompt": pair["prompt"], **as_whole_conversations(pair)}


@pytest.mark.parametrize("shaped", [as_messages, as_whole_conversations, as_conversations_with_their_prompt])
def test_the_same_preferences_in_another_shape_are_the_same(
    prefer: Any, tmp_path: Path, shaped: Callable[[Pair], Pair]
) -> None:
    runs = [prefer(**BEGINS), prefer(on=write(tmp_path / "data", shaped), **BEGINS)]
    assert last(runs[0]) == last(runs[1])
    assert len({run.termination["manifest"]["evaluation"]["fingerprint"] for run in runs}) == 1


def test_a_model_without_a_chat_template_takes_texts_and_refuses_conversations(
    prefer: Any, model: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "model"
    plain.mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).write_bytes(file.read_bytes())
    assert "chat_template" not in json.loads((plain / "tokenizer_config.json").read_text())
    assert last(prefer(of=plain, **LEARNS))["eval_rewards_accuracy"] == 1.0
    run = prefer(of=plain, on=write(tmp_path / "data", as_messages))
    assert run.code == 2
    assert "no chat template" in run.stderr


def test_pairs_that_differ_only_behind_the_longest_row_teach_nothing_and_go(prefer: Any, tmp_path: Path) -> None:
    learned, held_out = (pairs(rows) for rows in tiny_model.split_rows())
    alike = [{"prompt": "What?", "chosen": "so " * 200 + end, "rejected": "so " * 200} for end in ("A", "B", "C")]
    write_jsonl(tmp_path / "train.jsonl", [*learned[3:], *alike])
    write_jsonl(tmp_path / "eval.jsonl", held_out)
    run = prefer(on=tmp_path, max_length=100, **BEGINS)
    last(run)
    assert run.termination["manifest"]["rows"] == {"train": 45, "eval": 12}


# --- durable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [ADAPTER, WHOLE_MODEL], ids=["adapter", "whole model"])
def test_a_resumed_run_ends_like_one_that_was_not_stopped(
    prefer: Any, stop_after: Any, tmp_path: Path, weights: dict[str, str]
) -> None:
    course = {"num_train_epochs": 2, "learning_rate": "1e-3", "per_device_train_batch_size": 8, "save_steps": 4}
    whole = last(prefer(output_dir=tmp_path / "whole", **weights, **course))
    stop_after(4)
    with pytest.raises(SystemExit):
        prefer(output_dir=tmp_path / "out", **weights, **course)
    resumed = prefer(output_dir=tmp_path / "out", **weights, **course)
    assert "resumed from step " in resumed.stdout
    assert last(resumed) == pytest.approx(whole, rel=1e-4)


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_rows_of_another_task_are_refused(prefer: Any, train: Any, data: Path, preferences: Path) -> None:
    for run in (prefer(on=data), train(on=preferences)):
        assert run.code == 2
        assert "Fix:" in run.stderr
        assert "chosen" in run.stderr


def test_prompts_that_leave_no_room_for_an_answer_are_refused(prefer: Any) -> None:
    run = prefer(max_length=8)
    assert run.code == 2
    assert "--max_length" in run.stderr
