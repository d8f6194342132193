"""What training and evaluation share: the rows as the loss sees them, the loss, and how both are reported."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from llmtune_trainer.dataset import to_training_rows
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.manifest import fingerprint_of
from llmtune_trainer.metrics import Log
from llmtune_trainer.settings import Settings


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


class Progress(TrainerCallback):  # type: ignore[misc]
    """Prints what the trainer logs, and stops a run whose loss is lost."""

    def __init__(self, log: Log) -> None:
        self.log = log
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
                self.log.metric("epoch", logs["epoch"])
            if not math.isfinite(logs[key]):
                self.diverged = control.should_training_stop = True
                control.should_save = False
            self.log.metric(named[key], logs[key])


def load_model(settings: Settings, folder: Path) -> tuple[Any, Any]:
    """Return the model and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, settings.dtype)), tokenizer


def arguments(settings: Settings, workspace: Path) -> SFTConfig:
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
        save_strategy="steps" if settings.save_steps else "no",
        save_steps=settings.save_steps or 1,
        save_total_limit=1,  # in the workspace, until it is stored
        report_to="none",
        disable_tqdm=True,
    )


def to_dataset(rows: list[dict[str, Any]], row_format: str, tokenizer: Any) -> Dataset:
    if row_format == "messages" and not tokenizer.chat_template:
        raise BadInputError(
            "The rows are `messages`, and the model's tokenizer has no chat template. "
            "Fix: take an instruction-tuned model, or rows of prompt and completion."
        )
    return Dataset.from_list(to_training_rows(rows, row_format, chat=bool(tokenizer.chat_template)))


def check_prepared(trainer: Any, settings: Settings) -> None:
    """TRL drops rows whose completion lies wholly behind max_length."""
    for name, dataset in (("evaluation", trainer.eval_dataset), ("training", trainer.train_dataset)):
        if len(dataset) == 0:
            raise BadInputError(
                f"No token of the {name} rows is left to learn: every prompt fills "
                f"--max_length {settings.max_length}. Fix: raise --max_length."
            )
    # Rows of like length side by side need less padding; the loss is the same in any order.
    lengths = [len(tokens) for tokens in trainer.eval_dataset["input_ids"]]
    trainer.eval_dataset = trainer.eval_dataset.select(sorted(range(len(lengths)), key=lengths.__getitem__))


def describe_evaluation(trainer: Any) -> dict[str, Any]:
    """Return what makes two losses comparable."""
    rows = trainer.eval_dataset
    return {"fingerprint": fingerprint_of(zip(rows["input_ids"], rows["labels"], strict=True)), "rows": len(rows)}


def evaluate(trainer: Any, prefix: str) -> float:
    return float(trainer.evaluate(metric_key_prefix=prefix)[f"{prefix}_loss"])
