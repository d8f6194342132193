"""What is seen of a training while it runs: its metrics, its pace, and whether its loss is lost."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerCallback

from llmtune_trainer.metrics import Log

# What the libraries add to an evaluation that says nothing of the model.
NOT_OF_THE_MODEL = (
    "runtime",
    "samples_per_second",
    "steps_per_second",
    "model_preparation_time",
    "jit_compilation_time",
    "entropy",
    "mean_token_accuracy",
    "num_tokens",
)


def evaluated(logs: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the metrics of an evaluation."""
    left_out = {f"{prefix}_{name}" for name in NOT_OF_THE_MODEL}
    return {
        name: float(value)
        for name, value in logs.items()
        if name.startswith(f"{prefix}_") and name not in left_out and isinstance(value, int | float)
    }


class Progress(TrainerCallback):  # type: ignore[misc]
    """Prints what the trainer logs, and stops a run whose loss is lost.

    :param ratio: two train losses in a row above so many times the mean of the first three are lost, too. One alone may
        be a batch of harder rows.
    """

    def __init__(self, log: Log, ratio: float | None) -> None:
        self.log = log
        self.ratio = ratio
        self.divergence: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        logs = logs or {}
        if "loss" in logs:
            self._on_training(logs, [entry["loss"] for entry in state.log_history if "loss" in entry])
        for prefix in ("eval", "base_eval"):
            self._on_evaluation(evaluated(logs, prefix), prefix)
        if self.divergence:
            control.should_training_stop = True
            control.should_save = control.should_evaluate = False

    def _on_training(self, logs: Mapping[str, Any], losses: Sequence[float]) -> None:
        for name, metric in (("epoch", "epoch"), ("learning_rate", "learning_rate"), ("loss", "train_loss")):
            self.log.metric(metric, logs[name])
        if not math.isfinite(logs["loss"]):
            self.divergence = "The loss is no longer a finite number"
            return
        first = fmean(losses[:3])
        if self.ratio is not None and len(losses) > 3 and min(losses[-2:]) > self.ratio * first:
            allowed = f"--divergence_ratio {self.ratio:g} times the first, {first:.4g}"
            self.divergence = f"The loss rose to {logs['loss']:.4g}, above {allowed},"

    def _on_evaluation(self, metrics: Mapping[str, float], prefix: str) -> None:
        for name, value in metrics.items():
            self.log.metric(name, value)
        if not math.isfinite(metrics.get(f"{prefix}_loss", 0.0)):
            self.divergence = "The loss is no longer a finite number"


class Pace(TrainerCallback):  # type: ignore[misc]
    """Counts the seconds that were spent on training, without evaluations and checkpoints."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._tokens_before = 0
        self._tokens = 0
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._since = time.monotonic()
        self._tokens_before = self._tokens = state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        now = time.monotonic()
        self.seconds += now - self._since
        self._since, self._tokens = now, state.num_input_tokens_seen

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._since = time.monotonic()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._since = time.monotonic()

    def measured(self) -> dict[str, float]:
        measured = {"peak_memory_bytes": float(peak_memory())}
        if self.seconds > 0 and self._tokens > self._tokens_before:
            measured["train_tokens_per_second"] = (self._tokens - self._tokens_before) / self.seconds
        return measured


def peak_memory() -> int:
    """Return the most bytes of the GPU, without one of the main memory, that this process has held."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
