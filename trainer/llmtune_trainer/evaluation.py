"""Evaluates an adapter, or a model without one, as a training does at its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PrinterCallback

from llmtune_trainer.dataset import Examples
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.lora_trainer import (
    LoraTrainer,
    Progress,
    arguments,
    check_prepared,
    describe_evaluation,
    evaluate,
    load_model,
    to_dataset,
)
from llmtune_trainer.metrics import Log
from llmtune_trainer.settings import Settings


def evaluate_adapter(
    settings: Settings, model_folder: Path, adapter_folder: Path | None, examples: Examples, workspace: Path, log: Log
) -> tuple[float, dict[str, Any]]:
    """Return the loss, and what makes it comparable."""
    model, tokenizer = load_model(settings, model_folder)
    if adapter_folder is not None:
        model = _with_adapter(model, settings, adapter_folder)
    rows = to_dataset(examples.eval, examples.format, tokenizer)
    trainer = LoraTrainer(
        model=model,
        args=arguments(settings, workspace),
        train_dataset=rows,  # TRL wants one
        eval_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Progress(log)],
    )
    trainer.remove_callback(PrinterCallback)
    check_prepared(trainer, settings)
    loss = evaluate(trainer, "eval")
    if not math.isfinite(loss):
        raise TrainerError(
            "The loss is not a finite number. Fix: check the weights of model and adapter, or use --dtype float32."
        )
    return loss, describe_evaluation(trainer)


def _with_adapter(model: Any, settings: Settings, folder: Path) -> Any:
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"`--adapter`={settings.adapter!r} does not fit {settings.model_name_or_path}: {reason} "
            "Fix: give the model that it was trained on."
        ) from error
