"""Fine-tunes one LoRA adapter with TRL and evaluates it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback, set_seed
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from llmtune_trainer.dataset import Examples, to_training_rows
from llmtune_trainer.errors import BadInputError, DivergedError, TrainerError
from llmtune_trainer.generate import complete
from llmtune_trainer.metrics import Log
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import public_name

# What a diverged run reports as its loss: worse than any other, yet a number, as collector and search need one.
DIVERGED_LOSS = 1e9
# Written by the libraries beside the adapter: a pickle and a template text, with paths of this machine in them.
NOT_PART_OF_ADAPTER = ("training_args.bin", "README.md")


@dataclass
class Outcome:
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    diverged: bool = False
    sample_before: str | None = None
    sample_after: str | None = None


class LoraTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with an evaluation loss that is the mean over tokens.

    The parent averages the means of batches, so that the loss changes with the batch size, with the number of
    processes and with the order of rows, and trials that differ in these do not compare.
    """

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,  # noqa: ARG002
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self.model.eval()
        per_row = []
        with torch.no_grad(), self.accelerator.autocast():
            for batch in dataloader:
                inputs = self._prepare_inputs(batch)
                outputs = self.model(**inputs, use_cache=False, fused_lm_head=True)
                sums = torch.stack((outputs.log_probs.double().sum(1), outputs.label_mask.double().sum(1)), dim=1)
                # Rows that were added to give each process the same number are left out again.
                per_row.append(self.accelerator.gather_for_metrics(sums).cpu())
        rows = torch.cat(per_row)
        log_likelihood, tokens = rows.sum(0).tolist()
        metrics = {f"{metric_key_prefix}_loss": -log_likelihood / tokens}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(rows))


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Prints what the trainer logs, and stops a run whose loss is lost."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.train_loss: float | None = None
        self.diverged = False

    def on_log(
        self,
        args: Any,  # noqa: ARG002
        state: Any,  # noqa: ARG002
        control: Any,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        named = {"loss": "train_loss", "eval_loss": "eval_loss", "base_eval_loss": "base_eval_loss"}
        for key in named.keys() & logs.keys():
            if key == "loss":
                self.train_loss = float(logs[key])
                self.log.metric("epoch", logs["epoch"])
            if not math.isfinite(logs[key]):
                self.diverged = control.should_training_stop = True
            self.log.metric(named[key], logs[key])


def train(settings: Settings, model_folder: Path, examples: Examples, workspace: Path, log: Log) -> tuple[Outcome, Any]:
    """Return the outcome and the trainer, which can save the adapter."""
    set_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=getattr(torch, settings.dtype))
    progress = _Progress(log)
    trainer = LoraTrainer(
        model=model,
        args=_arguments(settings, workspace),
        train_dataset=_dataset(examples.train, examples.format, tokenizer),
        eval_dataset=_dataset(examples.eval, examples.format, tokenizer),
        processing_class=tokenizer,
        peft_config=_lora(settings),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    _check_prepared(trainer, settings, log)
    outcome = Outcome()
    outcome.sample_before = _sample(settings, trainer, tokenizer)
    if settings.evaluate_base_model:
        outcome.metrics["base_eval_loss"] = _evaluate(trainer, "base_eval")
        if progress.diverged:
            raise TrainerError(
                "The loss of the model before training is not a finite number. "
                "Fix: check its weights, or use --dtype float32."
            )
    trainer.train()
    if progress.train_loss is not None and not progress.diverged:
        outcome.metrics["train_loss"] = progress.train_loss
    outcome.metrics["eval_loss"] = _last_evaluation(trainer) or _evaluate(trainer, "eval")
    outcome.steps = trainer.state.global_step
    if progress.diverged:
        _report_divergence(settings, outcome, log)
    else:
        outcome.sample_after = _sample(settings, trainer, tokenizer)
    return outcome, trainer


def save_adapter(trainer: Any, settings: Settings, folder: Path) -> None:
    trainer.save_model(str(folder))
    for name in NOT_PART_OF_ADAPTER:
        (folder / name).unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # PEFT wrote the folder that was loaded, which for S3 and the Hub is gone tomorrow.
    config["base_model_name_or_path"] = public_name(settings.model_name_or_path)
    config["revision"] = settings.model_revision
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _arguments(settings: Settings, workspace: Path) -> SFTConfig:
    on_cpu = not torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(workspace / "trainer"),
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not on_cpu,
        bf16=settings.dtype == "bfloat16",
        gradient_checkpointing=False,
        completion_only_loss=None,  # on wherever there is a completion
        max_length=settings.max_length,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.num_train_epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        warmup_steps=settings.warmup_ratio,  # transformers 5: below 1 it is a share of the steps
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.lr_scheduler_type,
        seed=settings.seed,
        eval_strategy="steps" if settings.eval_steps else "no",
        eval_steps=settings.eval_steps,
        logging_steps=0.1,  # ten times a run, however long it is
        logging_nan_inf_filter=False,  # else a lost run looks like a good one
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _lora(settings: Settings) -> LoraConfig:
    modules = settings.lora_target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def _dataset(rows: list[dict[str, Any]], row_format: str, tokenizer: Any) -> Dataset:
    if row_format == "messages" and not tokenizer.chat_template:
        raise BadInputError(
            "The rows are `messages`, and the model's tokenizer has no chat template. "
            "Fix: take an instruction-tuned model, or rows of prompt and completion."
        )
    return Dataset.from_list(to_training_rows(rows, row_format, chat=bool(tokenizer.chat_template)))


def _check_prepared(trainer: Any, settings: Settings, log: Log) -> None:
    """TRL drops rows whose completion lies wholly behind max_length."""
    for name, dataset in (("training", trainer.train_dataset), ("evaluation", trainer.eval_dataset)):
        if len(dataset) == 0:
            raise BadInputError(
                f"No token of the {name} rows is left to learn: every prompt fills "
                f"--max_length {settings.max_length}. Fix: raise --max_length."
            )
    # Rows of like length side by side need less padding; the loss is the same in any order.
    lengths = [len(tokens) for tokens in trainer.eval_dataset["input_ids"]]
    trainer.eval_dataset = trainer.eval_dataset.select(sorted(range(len(lengths)), key=lengths.__getitem__))
    trainable, total = trainer.model.get_nb_trainable_parameters()
    log.say(f"adapter: {trainable:,} trainable of {total:,} parameters, rank {settings.lora_r}")


def _evaluate(trainer: Any, prefix: str) -> float:
    return float(trainer.evaluate(metric_key_prefix=prefix)[f"{prefix}_loss"])


def _last_evaluation(trainer: Any) -> float | None:
    """Return the loss when --eval_steps has already evaluated the finished model."""
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if evaluations and evaluations[-1]["step"] == trainer.state.global_step:
        return float(evaluations[-1]["eval_loss"])
    return None


def _sample(settings: Settings, trainer: Any, tokenizer: Any) -> str | None:
    if settings.sample_prompt is None or not trainer.is_world_process_zero():
        return None
    return complete(trainer.model, tokenizer, settings.sample_prompt, settings.max_new_tokens)


def _report_divergence(settings: Settings, outcome: Outcome, log: Log) -> None:
    advice = f"after {outcome.steps} steps at --learning_rate {settings.learning_rate}"
    if settings.on_divergence == "fail":
        raise DivergedError(
            f"The loss is no longer a finite number {advice}. Fix: lower the learning rate, or pass "
            "--on_divergence report to have a search count such a trial as a very bad one."
        )
    outcome.diverged = True
    outcome.metrics["eval_loss"] = DIVERGED_LOSS
    log.say(
        f"The loss is no longer a finite number {advice}; it is reported as {DIVERGED_LOSS:g} and nothing is saved."
    )
    log.metric("eval_loss", DIVERGED_LOSS)
