"""Each row once in a pass over the data, in the same order and the same steps however many processes share them.

The libraries fill the processes' last batches up with rows that were there before. Here they get blank rows, of one
token that is not learned, so that a step has the same rows as with one process, and the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler

BLANK_TOKENS = 1


class EachRowOnce(Sampler[int]):  # type: ignore[misc]
    """Rows in an order of this seed and epoch, and the blank rows, which lie behind the others, last.

    :param epoch: asked at its begin. Where several processes resume, the libraries' ``set_epoch`` does not get here.
    """

    def __init__(self, rows: int, blanks: int, seed: int, epoch: Callable[[], int]) -> None:
        self.rows = rows
        self.blanks = blanks
        self.seed = seed
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        yield from torch.randperm(self.rows, generator=generator).tolist()
        yield from range(self.rows, len(self))

    def __len__(self) -> int:
        return self.rows + self.blanks


class OncePerEpoch:
    """Goes in front of a `transformers.Trainer` among the parents of a task's trainer."""

    blanks = 0  # the last of the training rows

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(rows)  # type: ignore[misc]
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return EachRowOnce(len(rows) - self.blanks, self.blanks, seed, lambda: int(self.state.epoch or 0))

    def _track_num_input_tokens(self: Any, inputs: dict[str, Any]) -> None:
        self.state.num_input_tokens_seen += self.accelerator.gather(tokens_of(inputs)).sum().item()


def blanks_for(rows: Any, args: Any) -> int:
    """Return how many blank rows fill the processes' last batches up."""
    return -len(rows) % (args.train_batch_size * args.world_size) if args.world_size > 1 else 0


def with_blanks(rows: Any, blanks: int, token: int) -> Any:
    if blanks == 0:
        return rows
    several = "label" in rows.column_names and isinstance(rows[0]["label"], list)
    blank: dict[str, Any] = {
        "input_ids": [token],
        "prompt_ids": [token],
        "chosen_ids": [],
        "rejected_ids": [],
        "token_type_ids": [0],
        "labels": [-100],
        "label": [-100.0] * len(rows[0]["label"]) if several else -100,
        "length": BLANK_TOKENS,
        "seq_lengths": [BLANK_TOKENS],
    }
    columns = {name: [blank[name]] * blanks for name in rows.column_names}
    return concatenate_datasets([rows, Dataset.from_dict(columns, features=rows.features)])


def tokens_of(inputs: dict[str, Any]) -> torch.Tensor:
    """Count the tokens of a batch, without padding and blank rows."""
    flat = "cu_seq_lens_q" in inputs
    lengths = inputs["cu_seq_lens_q"].diff() if flat else inputs["attention_mask"].sum(1)
    return lengths[lengths > BLANK_TOKENS].sum()
