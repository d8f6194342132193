"""Evaluates what was trained, an adapter or a whole model, or a model as it is, as a training does at its end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from transformers import PrinterCallback

from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.metrics import Log
from llmtune_trainer.model import load_model, make_trained_exact
from llmtune_trainer.progress import Progress
from llmtune_trainer.refusals import making_trainer
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import is_whole_model
from llmtune_trainer.tasks import make_trainer
from llmtune_trainer.tasks.classification import as_learned
from llmtune_trainer.training import evaluate


def evaluate_adapter(
    settings: Settings, model_folder: Path, adapter_folder: Path | None, prepared: Prepared, workspace: Path, log: Log
) -> dict[str, float]:
    if settings.task == "classification":
        prepared = as_learned(prepared, settings, adapter_folder or model_folder)
    model, tokenizer, settings = _load(settings, model_folder, adapter_folder, prepared)
    # TRL wants rows to train on, too.
    rows = replace(prepared, train=prepared.eval)
    with making_trainer(settings):
        trainer = make_trainer(settings, model, tokenizer, rows, [Progress(log, None)], workspace)
    trainer.remove_callback(PrinterCallback)
    metrics = evaluate(trainer, "eval")
    if not math.isfinite(metrics["eval_loss"]):
        raise TrainerError(
            "The loss is not a finite number. Fix: check the weights of model and adapter, or use --dtype float32."
        )
    return metrics


def _load(
    settings: Settings, model_folder: Path, adapter_folder: Path | None, prepared: Prepared
) -> tuple[Any, Any, Settings]:
    """Return what was trained, its tokenizer, and the settings that it was trained with."""
    if adapter_folder is not None and is_whole_model(adapter_folder):
        settings = replace(settings, use_peft=False)
        model, tokenizer = load_model(settings, adapter_folder, prepared.labels)
        # TRL loads from there what a preference is compared with.
        model.config.name_or_path = str(model_folder)
        return model, tokenizer, settings
    model, tokenizer = load_model(settings, model_folder, prepared.labels)
    if adapter_folder is not None:
        return _with_adapter(model, settings, adapter_folder), tokenizer, settings
    if model.new_modules:
        raise BadInputError(
            f"`--model_name_or_path`={settings.model_name_or_path!r} has no trained head for these classes, so "
            "that its answers would be chance. Fix: give a model that was trained to tell them, or --adapter."
        )
    return model, tokenizer, settings


def _with_adapter(model: Any, settings: Settings, folder: Path) -> Any:
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
        # PEFT makes only its own weights float32, and rounds the others, such as modules trained as a whole.
        make_trained_exact(adapted)
        set_peft_model_state_dict(adapted, load_peft_weights(str(folder)))
        return adapted.requires_grad_(False)
    except (RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"`--adapter`={settings.adapter!r} does not fit {settings.model_name_or_path}: {reason} "
            "Fix: give the model that it was trained on."
        ) from error
