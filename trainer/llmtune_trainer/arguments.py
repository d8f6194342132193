"""What every task passes to its trainer, and what of the libraries' own defaults would hurt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings


def training_arguments(settings: Settings, workspace: Path, class_name: str) -> dict[str, Any]:
    """Return the fields of TrainingArguments, or of the subclass ``class_name``; those a user chose win."""
    on_cpu = not torch.cuda.is_available()
    ours = {
        "output_dir": str(workspace / "trainer"),
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not on_cpu,
        "bf16": settings.dtype == "bfloat16",
        "tf32": None if on_cpu or torch.cuda.get_device_capability()[0] < 8 else True,
        "activation_checkpointing": False,  # a fifth of the speed; for where memory is short
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "per_device_eval_batch_size": settings.per_device_eval_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "warmup_steps": settings.warmup_ratio,  # transformers 5: below 1 it is a share of the steps
        "weight_decay": settings.weight_decay,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "seed": settings.seed,
        "eval_strategy": "steps" if settings.eval_steps else "no",
        "eval_steps": settings.eval_steps,
        "logging_steps": 0.1,  # ten times a run, however long it is
        "logging_nan_inf_filter": False,  # else a lost run looks like a good one
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 1,
        "save_total_limit": 1,  # in the workspace, until it is stored
        "include_num_input_tokens_seen": "non_padding",
        "report_to": "none",
        "disable_tqdm": True,
    }
    return ours | settings.passed_to(class_name)


def check_sharding(settings: Settings) -> None:
    on_one = not torch.cuda.is_available() or int(os.environ.get("WORLD_SIZE", "1")) == 1
    if on_one and settings.hyperparameters.get("fsdp"):
        # accelerate would leave it undone.
        raise BadInputError(
            "`--fsdp`=true shards the model over the GPUs of several processes, and there are none. "
            "Fix: leave it out; several processes on CPUs train with a whole model each."
        )
