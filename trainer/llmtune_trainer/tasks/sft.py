"""Supervised fine-tuning: a causal language model learns the labelled tokens of its rows, with TRL's SFTTrainer.

The rows of a batch lie end to end, without padding (``--padding_free false``: padded to the longest): the same rows,
loss and gradient. With ``--packing true`` several rows make up one of ``--max_length`` tokens (TRL's bfd).

`eval_loss` is the mean over the learned tokens of all rows, `eval_perplexity` its exponential, and
`eval_token_accuracy` the share of these tokens that are the model's first choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from llmtune_trainer.arguments import training_arguments
from llmtune_trainer.attention import ROW_BY_ROW, attends_row_by_row, takes_flat_batches
from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.model import adapter_config
from llmtune_trainer.settings import Settings
from llmtune_trainer.tasks.each_row_once import OncePerEpoch, blanks_for, with_blanks
from llmtune_trainer.tasks.exact_evaluation import ExactEvaluation

# What a run that has diverged reports, so that no search takes it for a good one.
WORST = {"eval_loss": 1e9, "eval_perplexity": 1e9, "eval_token_accuracy": 0.0}
# The logits of so many bytes at once are faster than TRL's tiles, which compute them twice.
LARGEST_LOGITS = 2**30


class FlatRows(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """Lays the rows of a batch end to end, and says where each ends."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        return batch | {"row_lengths": batch["cu_seq_lens_q"].diff().tolist()}


class TokenTrainer(ExactEvaluation, OncePerEpoch, SFTTrainer):  # type: ignore[misc]
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or not self._computes_loss(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self._computes_logits(inputs):
            logits, targets, _ = _logits(model, inputs)
            total, learned = cross_entropy(logits, targets, reduction="sum"), len(targets)
        else:
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            total, learned = -outputs.log_probs[outputs.label_mask].sum(), int(outputs.label_mask.sum())
        # A batch without a learned token has a loss of zero.
        tokens = max(1, learned) if num_items_in_batch is None else num_items_in_batch
        # The gradients are averaged over the processes, and the tokens were counted over all.
        counted = num_items_in_batch is not None and self.args.average_tokens_across_devices
        share = self.accelerator.num_processes if counted else 1
        return total / tokens * share

    def row_numbers(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Return of each row its log-likelihood, its learned tokens, and how many of them were the first choice."""
        if self._computes_logits(inputs):
            logits, targets, rows = _logits(self.model, inputs)
            log_probs, first = -cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets
        else:
            outputs = self.model(**inputs, use_cache=False, fused_lm_head=True)
            learned = outputs.label_mask
            log_probs, first, rows = outputs.log_probs[learned], outputs.is_top1[learned], _rows(inputs)[learned]
        numbers = torch.stack((log_probs.double(), torch.ones_like(log_probs).double(), first.double()), dim=1)
        return numbers.new_zeros(_row_count(inputs), 3).index_add_(0, rows.long(), numbers)

    def summarise(self, rows: torch.Tensor) -> dict[str, float]:
        log_likelihood, tokens, first = rows.sum(0).tolist()
        loss = -log_likelihood / tokens
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {"loss": loss, "perplexity": perplexity, "token_accuracy": first / tokens}

    def _computes_loss(self, inputs: dict[str, Any]) -> bool:
        """Whether the loss is computed here; the same for all processes, as TRL's way has them meet for its metrics."""
        plain = self.args.loss_type == "nll" and not self.args.label_smoothing_factor and not self.aux_loss_enabled
        return bool(plain and "seq_idx" in inputs and inputs["input_ids"].device.type != "cuda")

    def _computes_logits(self, inputs: dict[str, Any]) -> bool:
        """Whether to take the model's own logits of the learned tokens, rather than TRL's head.

        Where no Triton is, TRL's computes those of the prompts too, and each twice.
        """
        if not self._computes_loss(inputs):
            return False
        learned = int((inputs["labels"][:, 1:] != -100).sum())
        return bool(learned * self.model.config.get_text_config().vocab_size * 4 <= LARGEST_LOGITS)


def _logits(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the logits of the learned tokens of a flat batch, these tokens, and the row of each."""
    following = inputs["labels"][0, 1:]
    learned = (following != -100).nonzero().flatten()
    others = {name: value for name, value in inputs.items() if name != "labels"}
    outputs = model(**others, use_cache=False, logits_to_keep=learned)
    return outputs.logits[0].float(), following[learned], inputs["seq_idx"][0, 1:][learned]


def _rows(inputs: dict[str, Any]) -> torch.Tensor:
    """Return the row of each token but the first."""
    if "seq_idx" in inputs:
        return inputs["seq_idx"][:, 1:]
    rows, tokens = inputs["input_ids"].shape
    return torch.arange(rows, device=inputs["input_ids"].device)[:, None].expand(rows, tokens - 1)


def _row_count(inputs: dict[str, Any]) -> int:
    return len(inputs["cu_seq_lens_q"]) - 1 if "seq_idx" in inputs else len(inputs["input_ids"])


def make_trainer(
    settings: Settings, model: Any, tokenizer: Any, prepared: Prepared, callbacks: Sequence[Any], workspace: Path
) -> TokenTrainer:
    given = {"padding_free": True} | training_arguments(settings, workspace, "SFTConfig")
    packing, flat = given.pop("packing", False), given.pop("padding_free")
    args = SFTConfig(**given, max_length=settings.max_length, dataset_kwargs={"skip_prepare_dataset": True})
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    flat = (flat or packing) and takes_flat_batches(base)
    if packing and not flat:
        raise BadInputError(
            f"`--packing`=true would mix rows in {settings.model_name_or_path}: a {base.config.model_type} model does "
            "not tell them apart by their positions. Fix: leave it out."
        )
    blanks = blanks_for(prepared.train, args)
    trainer = TokenTrainer(
        model=model,
        args=args,
        data_collator=_flat_collator(base, tokenizer, settings) if flat else _collator(tokenizer),
        train_dataset=with_blanks(prepared.train, blanks, tokenizer.pad_token_id),
        eval_dataset=prepared.eval,
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else adapter_config(settings),
        callbacks=list(callbacks),
    )
    trainer.blanks = blanks
    return trainer


def _collator(tokenizer: Any) -> DataCollatorForLanguageModeling:
    return DataCollatorForLanguageModeling(tokenizer.pad_token_id)


def _flat_collator(model: Any, tokenizer: Any, settings: Settings) -> DataCollatorForLanguageModeling:
    if model.config._attn_implementation == "flash_attention_2" or not attends_row_by_row(model, settings.max_length):
        return DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)
    model.set_attn_implementation(ROW_BY_ROW)
    return FlatRows(tokenizer.pad_token_id, padding_free=True)
