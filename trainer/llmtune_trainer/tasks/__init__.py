"""One file a task: how its trainer is made. Each is imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune_trainer.settings import Settings

if TYPE_CHECKING:
    from llmtune_trainer.data.prepare import Prepared


def make_trainer(
    settings: Settings, model: Any, tokenizer: Any, prepared: Prepared, callbacks: Sequence[Any], workspace: Path
) -> Any:
    """Return the task's ``transformers.Trainer``. Its ``evaluate()`` gives means over all rows or tokens."""
    from llmtune_trainer.model import make_trained_exact

    trainer = _module(settings.task).make_trainer(settings, model, tokenizer, prepared, callbacks, workspace)
    # TRL has an adapter on few bits in bfloat16, and PEFT what is trained as a whole.
    make_trained_exact(trainer.model)
    if trainer.args.bf16:
        _spare_copies(trainer.model)
    return trainer


def _spare_copies(model: Any) -> None:
    """Keep PEFT from making each input float32, as its weights are: autocast only makes it bfloat16 again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer) and not getattr(layer, "lora_variant", None):
            layer.cast_input_dtype_enabled = False


def worst(task: str) -> dict[str, float]:
    """Return what a run of the task reports that has diverged."""
    return {**_module(task).WORST, "train_loss": 1e9}


def _module(task: str) -> Any:
    return importlib.import_module(f"{__name__}.{task}")
