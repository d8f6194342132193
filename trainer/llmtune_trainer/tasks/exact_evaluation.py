"""Evaluation in which each row counts once, whatever the batch size, their order and the number of processes.

The library's own averages the means of batches, so that a short last batch counts as much as the others, and takes the
rows with which it fills up the processes' last batches for further ones. Trials that differ in these would not compare.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.trainer_utils import EvalLoopOutput


class ExactEvaluation:
    """Goes in front of a `transformers.Trainer` among the parents of a task's trainer."""

    def row_numbers(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return one line of numbers for each row of the batch."""
        raise NotImplementedError

    def summarise(self, rows: torch.Tensor) -> dict[str, float]:
        """Return the metrics, by the names they have behind ``eval_``, of the lines of all rows."""
        raise NotImplementedError

    def evaluation_loop(
        self: Any,
        dataloader: Any,
        description: str,  # noqa: ARG002
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self.model.eval()
        lines = []
        with torch.no_grad(), self.accelerator.autocast():
            for batch in dataloader:
                numbers = self.row_numbers(self._prepare_inputs(batch))
                # Rows that were added to give each process the same number are left out again.
                lines.append(self.accelerator.gather_for_metrics(numbers).cpu())
        rows = torch.cat(lines)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.summarise(rows).items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(rows))
