"""Preference tuning (DPO): the model comes to prefer the chosen answers to the rejected ones, as TRL trains it.

The reference is the model as it was: the one without the adapter, or a second copy where all weights are trained.

`eval_rewards_accuracy` is the share of the pairs whose chosen answer gained more likelihood than the rejected one,
`eval_rewards_margin` by how much more, times beta, in the mean, and `eval_loss` the loss of the DPO paper, whatever
`--loss_type` trains with: the losses of two types do not compare, nor do those of two betas. The accuracies do.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from trl import DPOConfig, DPOTrainer

from llmtune_trainer.arguments import training_arguments
from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.model import adapter_config
from llmtune_trainer.settings import Settings
from llmtune_trainer.tasks.exact_evaluation import ExactEvaluation

# What a run that has diverged reports, so that no search takes it for a good one.
WORST = {"eval_loss": 1e9, "eval_rewards_accuracy": 0.0, "eval_rewards_margin": -1e9}


class PreferenceTrainer(ExactEvaluation, DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """Take the rows as they are: they have its columns already, and TRL has no option to say so."""
        return dataset

    def row_numbers(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return of each pair its loss, its margin, and whether the chosen answer is preferred."""
        chosen, rejected = self._gains(inputs).chunk(2)
        margin = self.beta * (chosen - rejected)
        return torch.stack((-functional.logsigmoid(margin), margin, (margin > 0).double()), dim=1)

    def summarise(self, rows: torch.Tensor) -> dict[str, float]:
        loss, margin, accuracy = rows.mean(0).tolist()
        return {"loss": loss, "rewards_accuracy": accuracy, "rewards_margin": margin}

    def _gains(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return how much likelier each answer is than in the reference; the chosen ones first."""
        now = _log_likelihoods(self.model, inputs)
        with self._without_adapter():
            return now - _log_likelihoods(self.ref_model or self.model, inputs)

    def _without_adapter(self) -> AbstractContextManager[Any]:
        return self.model.disable_adapter() if self.ref_model is None else nullcontext()


def _log_likelihoods(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    labels = tokens["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    log_probs = model(**tokens, labels=labels, use_cache=False, fused_lm_head=True).log_probs
    return log_probs.double().sum(1)


def make_trainer(
    settings: Settings, model: Any, tokenizer: Any, prepared: Prepared, callbacks: Sequence[Any], workspace: Path
) -> PreferenceTrainer:
    arguments = training_arguments(settings, workspace, "DPOConfig")
    # TRL switches off all dropout, that of the adapter too: --lora_dropout would do nothing.
    arguments.setdefault("disable_dropout", settings.lora_dropout == 0)
    return PreferenceTrainer(
        model=model,
        args=DPOConfig(max_length=settings.max_length, **arguments),
        train_dataset=prepared.train,
        eval_dataset=prepared.eval,
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else adapter_config(settings),
        callbacks=list(callbacks),
    )
