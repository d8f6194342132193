"""What a run does, on the tiny model, in this process."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_model
from llmtune_trainer import __version__, sharding
from llmtune_trainer.__main__ import main
from llmtune_trainer.tasks import sft
from tiny_files import write_jsonl

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


def test_bfloat16_weights_train_too(train: Any) -> None:
    losses = train(dtype="bfloat16", evaluate_base_model="yes", sample_prompt=QUESTION, **TUNED).metrics
    assert losses["eval_loss"][-1] < losses["base_eval_loss"][0] / 2


def test_evaluating_every_few_steps_reports_each_point_once(train: Any) -> None:
    run = train(max_steps=6, eval_steps=2)
    assert len(run.metrics["eval_loss"]) == 3
    assert run.termination["metrics"]["eval_loss"] == run.metrics["eval_loss"][-1]


def test_smaller_shares_of_the_data_are_judged_by_the_same_rows(train: Any, tmp_path: Path) -> None:
    everything = write_jsonl(tmp_path / "rows.jsonl", tiny_model.rows())
    settings = {"max_steps": 1, "eval_fraction": 0.2, "evaluate_base_model": "true", "on": everything}
    small, large = (train(train_fraction=share, **settings).metrics["base_eval_loss"] for share in (0.1, 1))
    assert small == large


def test_messages_and_prompts_of_the_same_text_have_the_same_loss(train: Any, tmp_path: Path) -> None:
    for split, rows in zip(("train", "test"), tiny_model.split_rows(), strict=True):
        turns = [(("user", row["prompt"]), ("assistant", row["completion"])) for row in rows]
        talks = [{"messages": [{"role": role, "content": content} for role, content in turn]} for turn in turns]
        write_jsonl(tmp_path / f"{split}.jsonl", talks)
    run = train(on=tmp_path, max_steps=2)
    assert "rows: 48 to train on, 12 to evaluate, format messages" in run.stdout
    assert run.metrics["eval_loss"] == train(max_steps=2).metrics["eval_loss"]


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
    assert run.termination["metrics"] == {
        "eval_loss": 1e9,
        "eval_perplexity": 1e9,
        "eval_token_accuracy": 0.0,
        "train_loss": 1e9,
    }
    assert run.metrics["eval_token_accuracy"][-1] == 0.0
    assert run.termination["artifact_uri"] is None
    assert not (tmp_path / "adapter").exists()


def test_a_loss_that_rises_far_above_the_first_one_has_diverged(train: Any, tmp_path: Path) -> None:
    """Finite, and yet lost: it stops where it is seen."""
    rising = {"learning_rate": 1, "use_peft": "false", "max_steps": 20, "warmup_ratio": 0.3, "logging_steps": 1}
    rising |= {"divergence_ratio": 2}
    run = train(output_dir=tmp_path / "adapter", on_divergence="report", **rising)
    assert run.code == 0
    assert "above --divergence_ratio 2 times the first" in run.stdout
    *seen, reported = run.metrics["train_loss"]
    assert (len(seen) < 20, reported) == (True, 1e9)
    assert min(seen[-2:]) > 2 * sum(seen[:3]) / 3
    assert run.metrics["eval_loss"][-1] == run.termination["metrics"]["eval_loss"] == 1e9
    assert not (tmp_path / "adapter").exists()
    kept = train(**(rising | {"divergence_ratio": "none"}))
    assert len(kept.metrics["train_loss"]) == 20


def test_a_lucky_first_batch_is_no_measure_of_the_others(train: Any, tmp_path: Path) -> None:
    """Rows that differ much, one a step, and a learning rate that changes nothing."""
    rows = [{"text": f"{number} " * (1 if number % 2 else 40)} for number in range(12)]
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "eval"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for seed in (1, 2, 3):
        one = {"per_device_train_batch_size": 1, "logging_steps": 1, "learning_rate": 1e-12, "seed": seed}
        assert train(on=folder, **one).code == 0


def test_the_loss_is_computed_alike_whether_or_not_the_logits_fit(train: Any, monkeypatch: Any) -> None:
    """TRL's own way has the processes meet for its metrics: one that took another way would be waited for for ever."""
    usual = train(max_steps=3)

    def meets(*_: Any, **__: Any) -> None:
        raise AssertionError("TRL's way is taken")

    monkeypatch.setattr(sft.SFTTrainer, "compute_loss", meets)
    monkeypatch.setattr(sft, "LARGEST_LOGITS", 0)
    other = train(max_steps=3)
    assert other.code == 0
    assert other.metrics["train_loss"] == pytest.approx(usual.metrics["train_loss"], rel=1e-5)
    assert other.metrics["eval_loss"] == pytest.approx(usual.metrics["eval_loss"], rel=1e-5)


def test_a_trainer_of_another_version_than_the_command_is_made_for_refuses_it(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(version: str, *more: str) -> tuple[int, str]:
        arguments = [f"--model_name_or_path={model}", f"--dataset_name={data}", *more]
        environ = {"LLMTUNE_TERMINATION_LOG": str(tmp_path / "log"), "LLMTUNE_TRAINER_VERSION": version}
        return main(arguments, environ), capsys.readouterr().err

    code, said = run("7.3.1")
    assert code == 2
    assert "`LLMTUNE_TRAINER_VERSION`='7.3.1'" in said
    assert f"this is llmtune-trainer {__version__}" in said
    # The flags of another version may be unknown; here they are looked at.
    for version in ("", f"{__version__}.post1"):
        code, said = run(version, "--no_such_flag=1")
        assert code == 2
        assert "no_such_flag" in said


def test_metrics_as_json_are_what_katib_reads(train: Any) -> None:
    run = train(max_steps=2, metrics_format="json")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    told = {name: value for line in lines for name, value in line.items()}
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert float(told["eval_loss"]) == run.termination["metrics"]["eval_loss"]
    assert {"eval_perplexity", "eval_token_accuracy", "train_tokens_per_second", "peak_memory_bytes"} <= set(told)


def test_what_vllm_cannot_serve_is_told(train: Any) -> None:
    plain = train(max_steps=1).termination["manifest"]
    assert (plain["servable"], plain["unservable"]) == (True, [])
    manifest = train(max_steps=1, use_dora="true", lora_bias="lora_only").termination["manifest"]
    assert manifest["servable"] is False
    assert [reason.split(":")[0] for reason in manifest["unservable"]] == ["bias 'lora_only'", "use_dora"]


def test_a_model_without_some_of_its_weights_is_refused(train: Any, model: Path, tmp_path: Path) -> None:
    deeper = shutil.copytree(model, tmp_path / "deeper")
    config = json.loads((deeper / "config.json").read_text(encoding="utf-8"))
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}), encoding="utf-8")
    run = train(of=deeper, max_steps=1)
    assert run.code == 2
    assert "has no weights for 9 of its tensors (model.layers.2." in run.stderr


def test_sharding_without_gpus_is_refused_rather_than_left_undone(train: Any) -> None:
    run = train(fsdp="true", max_steps=1)
    assert run.code == 2
    assert "`--fsdp`=true shards the model over the GPUs of several processes, and there are none" in run.stderr


def test_the_library_heeds_each_key_that_fsdp_config_takes() -> None:
    from transformers import TrainingArguments

    source = inspect.getsource(TrainingArguments._process_fsdp_args)
    assert [name for name in sharding._KINDS if f'"{name}"' not in source] == []


def test_prompts_that_leave_no_room_for_a_completion_are_refused(train: Any) -> None:
    run = train(max_length=8)
    assert run.code == 2
    assert "every prompt fills --max_length 8" in run.stderr


def test_what_is_no_bad_input_is_passed_on_in_the_libraries_words(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: device lost")

    monkeypatch.setattr("llmtune_trainer.training.make_trainer", fail)
    run = train(max_steps=1)
    assert run.code == 1
    assert run.termination["status"] == "failed"
    assert run.termination["error"] == "RuntimeError: CUDA error: device lost"
    assert "Traceback" in run.stderr


def test_all_weights_saved_over_an_adapter_are_what_is_evaluated(train: Any, tmp_path: Path) -> None:
    train(max_steps=1, output_dir=tmp_path / "out", merge_adapter=True)
    trained = train(max_steps=3, learning_rate="3e-3", use_peft=False, output_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "merged").exists()
    judged = train(mode=("evaluate",), adapter=tmp_path / "out")
    assert judged.metrics["eval_loss"] == pytest.approx(trained.metrics["eval_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_target_modules": "nothere"}, ["`--lora_target_modules`='nothere'", "q_proj"]),
        ({"lora_modules_to_save": "lm_head,nothere"}, ["`--lora_modules_to_save`='nothere'", "lm_head"]),
        ({"lr_scheduler_kwargs": '{"foo": 1}'}, ["--lr_scheduler_kwargs", "argument 'foo'"]),
        ({"optim": "adamw_8bit"}, ["`--optim`='adamw_8bit'", "bitsandbytes"]),
        ({"torch_compile_backend": "nothere"}, ["`--torch_compile_backend`='nothere'", "DynamoBackend"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_setting_that_a_library_refuses_is_named(
    train: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.setattr("transformers.trainer_optimizer.is_bitsandbytes_available", lambda: False)
    run = train(max_steps=1, **settings)
    assert run.code == 2, run.stderr
    assert all(word in run.termination["error"] for word in [*words, "Fix:"]), run.termination["error"]
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("mode", [(), ("evaluate",)], ids=["train", "evaluate"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_broken_file_of_the_model_is_named(
    train: Any, model: Path, tmp_path: Path, name: str, mode: tuple[str, ...]
) -> None:
    broken = shutil.copytree(model, tmp_path / "broken")
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    run = train(of=broken, mode=mode)
    assert run.code == 2, run.stderr
    assert all(word in run.termination["error"] for word in (str(broken), f"({name}: broken)", "Fix:"))
    assert "Traceback" not in run.stderr
