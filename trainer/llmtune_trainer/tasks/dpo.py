"""Preference tuning (DPO): the model comes to prefer the chosen answers to the rejected ones, as TRL trains it.

The reference is the model as it was: the one without the adapter, or a second copy where all weights are trained.

`eval_rewards_accuracy` is the share of the pairs whose chosen answer gained more likelihood than the rejected one,
`eval_rewards_margin` by how much more, times beta, in the mean, and `eval_loss` the loss of the DPO paper, whatever
`--loss_type` trains with: the losses of two types do not compare, nor do those of two betas. The accuracies do.

The train loss is the mean over the pairs of a step (of ``sft``: over the tokens of their chosen answers), however many
processes and batches share them. Only ``aot`` and ``aot_unpaired`` have it depend on them: they sort each batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from llmtune_trainer.arguments import training_arguments
from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.model import adapter_config
from llmtune_trainer.settings import Settings
from llmtune_trainer.tasks.each_row_once import OncePerEpoch, blanks_for, with_blanks
from llmtune_trainer.tasks.exact_evaluation import ExactEvaluation

# What a run that has diverged reports, so that no search takes it for a good one.
WORST = {"eval_loss": 1e9, "eval_rewards_accuracy": 0.0, "eval_rewards_margin": -1e9}


class Pairs(DataCollatorForPreference):  # type: ignore[misc]
    """Leaves the blank pairs of a batch out, as TRL would take them into its means; one where there is nothing else."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        answered = [example for example in examples if example["chosen_ids"] or example["rejected_ids"]]
        batch: dict[str, Any] = super().torch_call(answered or examples[:1])
        return batch


class PreferenceTrainer(ExactEvaluation, OncePerEpoch, DPOTrainer):  # type: ignore[misc]
    loss_is_scaled_for_ga = True

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """Take the rows as they are: they have its columns already, and TRL has no option to say so."""
        return dataset

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Return the pairs of a step, and the tokens of their chosen answers, over all processes."""
        counts = torch.stack([_counts(batch) for batch in batch_samples]).sum(0, keepdim=True)
        return self.accelerator.gather(counts.to(device)).sum(0)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: ARG002  of evaluations only, and these have a loop of their own
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the part of a batch in the mean over the step, times the processes, over which it is averaged."""
        pairs, tokens = self.accelerator.num_processes * _counts(inputs) / num_items_in_batch
        if not pairs:  # the other processes wait for the gradients
            return self._gains(model, inputs).sum() * 0
        given = self.args.loss_weights or [1.0] * len(self.loss_types)
        shares = [tokens if kind == "sft" else pairs for kind in self.loss_types]
        # Of each type TRL takes the mean over the batch.
        self.loss_weights = [weight * share / pairs for weight, share in zip(given, shares, strict=True)]
        with _by_itself(self.accelerator):
            return super().compute_loss(model, inputs) * pairs

    def row_numbers(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return of each pair its loss, its margin, and whether the chosen answer is preferred."""
        chosen, rejected = self._gains(self.model, inputs).chunk(2)
        margin = self.beta * (chosen - rejected)
        return torch.stack((-functional.logsigmoid(margin), margin, (margin > 0).double()), dim=1)

    def summarise(self, rows: torch.Tensor) -> dict[str, float]:
        loss, margin, accuracy = rows.mean(0).tolist()
        return {"loss": loss, "rewards_accuracy": accuracy, "rewards_margin": margin}

    def _gains(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return how much likelier each answer is than in the reference; the chosen ones first."""
        now = _log_likelihoods(model, inputs)
        with torch.no_grad(), self._without_adapter():
            before = _log_likelihoods(self.ref_model or self.model, inputs)
        return now - before

    def _without_adapter(self) -> AbstractContextManager[Any]:
        return self.model.disable_adapter() if self.ref_model is None else nullcontext()


def _counts(inputs: dict[str, Any]) -> torch.Tensor:
    """Return the pairs of a batch that are not blank, and the tokens of their chosen answers that are learned."""
    chosen, rejected = inputs["completion_mask"].chunk(2)
    return torch.stack(((chosen | rejected).any(1).sum(), chosen[:, 1:].sum()))


@contextmanager
def _by_itself(accelerator: Any) -> Iterator[None]:
    """Keep TRL from gathering its own metrics of each batch: nobody reads them, and batches may differ in size."""
    accelerator.gather = accelerator.gather_for_metrics = lambda tensor: tensor
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


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
    # Of the columns TRL would keep only the tokens, and --train_sampling_strategy looks at their "length".
    args = DPOConfig(max_length=settings.max_length, remove_unused_columns=False, **arguments)
    blanks = blanks_for(prepared.train, args)
    trainer = PreferenceTrainer(
        model=model,
        args=args,
        data_collator=Pairs(tokenizer.pad_token_id, pad_to_multiple_of=args.pad_to_multiple_of),
        train_dataset=with_blanks(prepared.train, blanks, tokenizer.pad_token_id),
        eval_dataset=prepared.eval,
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else adapter_config(settings),
        callbacks=list(callbacks),
    )
    trainer.blanks = blanks
    return trainer
