"""Sequence classification: a model with a head of one number a class, encoder or decoder.

`eval_loss` is the mean cross entropy over the rows, `eval_accuracy` the share of rows that are right, and `eval_f1` the
mean of the classes' F1 (macro: a rare class counts as much as a frequent one; a class that neither the rows nor the
predictions have counts nothing). Where rows have lists of classes, each class is a yes or no, and a row is right when
all of them are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from torch.nn import functional
from transformers import AutoConfig, DataCollatorWithPadding, Trainer, TrainingArguments

from llmtune_trainer.arguments import training_arguments
from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.model import adapter_config
from llmtune_trainer.settings import Settings
from llmtune_trainer.tasks.each_row_once import OncePerEpoch, blanks_for, with_blanks
from llmtune_trainer.tasks.exact_evaluation import ExactEvaluation


class Classifier(ExactEvaluation, OncePerEpoch, Trainer):  # type: ignore[misc]
    def row_numbers(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return of each row its loss, and a one or zero a class for what was predicted and for what is right."""
        labels = inputs.pop("labels")
        logits = self.model(**inputs).logits.float()
        loss = _losses(logits, labels).reshape(len(labels), -1).mean(1)
        if labels.ndim > 1:
            predicted = logits > 0
        else:
            labels = functional.one_hot(labels, logits.shape[1])
            predicted = functional.one_hot(logits.argmax(1), logits.shape[1])
        return torch.cat((loss[:, None].double(), predicted.double(), labels.double()), dim=1)

    def summarise(self, rows: torch.Tensor) -> dict[str, float]:
        predicted, right = rows[:, 1:].bool().chunk(2, dim=1)
        return {
            "loss": rows[:, 0].mean().item(),
            "accuracy": (predicted == right).all(1).double().mean().item(),
            "f1": _macro_f1(predicted, right),
        }


def _losses(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Return the loss of each row, or of each of its classes where it may have several."""
    if labels.ndim > 1:
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.masked_fill(labels == -100, 0)  # of a blank row
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def _mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any, smoothing: float) -> torch.Tensor:
    """Return the part of a batch in the mean over all rows of a step.

    The models' own loss is the mean over the batch, and the library adds these up as if each were such a part: eight
    batches to a step would have eight times the gradient.
    """
    return _losses(outputs.logits.float(), labels, smoothing).sum() / num_items_in_batch


def _macro_f1(predicted: torch.Tensor, right: torch.Tensor) -> float:
    counts = predicted.sum(0) + right.sum(0)
    hits = (predicted & right).sum(0).double()
    return float((2 * hits / counts)[counts > 0].mean())


# What a run that has diverged reports, so that no search takes it for a good one.
WORST = {"eval_loss": 1e9, "eval_accuracy": 0.0, "eval_f1": 0.0}


def make_trainer(
    settings: Settings, model: Any, tokenizer: Any, prepared: Prepared, callbacks: Sequence[Any], workspace: Path
) -> Classifier:
    if len(prepared.labels) < 2:
        raise BadInputError(
            f"All rows of {settings.dataset_name} have one class, {', '.join(prepared.labels)}: there is nothing to "
            "tell apart. Fix: give data of two classes or more."
        )
    several = isinstance(prepared.eval[0]["label"], list)
    model.config.problem_type = f"{'multi' if several else 'single'}_label_classification"
    # By it a model that reads from left to right finds the last token of a row.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config = adapter_config(settings)
    if config is not None and not isinstance(model, PeftModel):
        model = _with_adapter(settings, model, config)
    args = TrainingArguments(**training_arguments(settings, workspace, "TrainingArguments"))
    blanks = blanks_for(prepared.train, args)
    trainer = Classifier(
        model=model,
        args=args,
        train_dataset=with_blanks(prepared.train, blanks, tokenizer.pad_token_id),
        eval_dataset=prepared.eval,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=partial(_mean_loss, smoothing=args.label_smoothing_factor),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.blanks = blanks
    return trainer


def as_learned(prepared: Prepared, settings: Settings, trained: Path) -> Prepared:
    """Number the classes of the evaluation rows as the trained model does, which may know more of them."""
    learned = _learned_classes(trained)
    if not learned or learned == prepared.labels:
        return prepared
    if unknown := sorted({*prepared.labels} - {*learned}):
        raise BadInputError(
            f"The rows of {settings.dataset_name} have the classes {', '.join(unknown)}, and the model was trained to "
            f"tell {', '.join(learned)}. Fix: evaluate on rows of these classes."
        )
    numbers = [learned.index(name) for name in prepared.labels]

    def renumbered(row: dict[str, Any]) -> dict[str, Any]:
        if isinstance(row["label"], int):
            return {"label": numbers[row["label"]]}
        own = {number for number, label in zip(numbers, row["label"], strict=True) if label}
        return {"label": [float(number in own) for number in range(len(learned))]}

    return replace(prepared, labels=learned, eval=prepared.eval.map(renumbered, keep_in_memory=True))


def _learned_classes(trained: Path) -> tuple[str, ...]:
    """Return the classes that an adapter's manifest, or a model's configuration, names."""
    if (trained / "adapter_config.json").is_file():
        file = trained / "result.json"
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return tuple(told.get("manifest", {}).get("classes", ()))
    names = AutoConfig.from_pretrained(trained).id2label
    return tuple(name for number, name in sorted(names.items()) if name != f"LABEL_{number}")


def _with_adapter(settings: Settings, model: Any, config: LoraConfig) -> Any:
    """Give the model an adapter; PEFT trains the head with it, as a whole, and saves it in the adapter."""
    # So must be what else the checkpoint had no weights for, such as BERT's pooler: the next time it would be another.
    new = [name for name in model.new_modules if not {*name.split(".")} & {*SEQ_CLS_HEAD_NAMES}]
    config.modules_to_save = [*(config.modules_to_save or ()), *new]
    if settings.load_in_4bit or settings.load_in_8bit:
        _check_precision(settings, model)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, config)


def _check_precision(settings: Settings, model: Any) -> None:
    for name in model.new_modules:
        if not all(weights.is_floating_point() for weights in model.get_submodule(name).parameters()):
            flag = "--load_in_4bit" if settings.load_in_4bit else "--load_in_8bit"
            raise BadInputError(
                f"`{flag}`=true holds {name} in few bits, which would have to be trained, as "
                f"{settings.model_name_or_path} has no weights for it. Fix: leave the flag out."
            )
