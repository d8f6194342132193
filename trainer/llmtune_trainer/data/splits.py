"""Which rows are trained on and which are evaluated.

What is evaluated depends on the data, the splits, ``split_seed`` and ``max_eval_samples`` alone, so that the losses of
all trials and of the final run compare; a smaller share of the training rows is a part of a larger one.
"""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Collection, Sequence
from typing import NamedTuple

from llmtune_trainer.data.files import EVAL_SPLITS
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.settings import Settings

DEFAULT_EVAL_FRACTION = 0.1
# The settings are checked: a part that is no part does not come here.
PART = re.compile(r"(?P<split>[^\[]+)(\[(?P<start>-?\d+)?(?P<start_in>%)?:(?P<stop>-?\d+)?(?P<stop_in>%)?\])?")


class Part(NamedTuple):
    """Some rows of a split that follow each other, as `datasets` counts them: ``train[:1000]``, ``train[10%:20%]``."""

    split: str
    start: int | None = None
    stop: int | None = None
    in_percent: bool = False

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return self.split
        unit = "%" if self.in_percent else ""
        start, stop = ("" if bound is None else f"{bound}{unit}" for bound in (self.start, self.stop))
        return f"{self.split}[{start}:{stop}]"

    def range_of(self, count: int) -> range:
        return range(*slice(self._row(self.start, count), self._row(self.stop, count)).indices(count))

    def _row(self, bound: int | None, count: int) -> int | None:
        return bound if bound is None or not self.in_percent else round(bound * count / 100)

    @property
    def last_needed(self) -> int | None:
        """Return the row behind which none is looked at, when that is known without counting all."""
        counted = self.in_percent or self.stop is None or min(self.start or 0, self.stop) < 0
        return None if counted else self.stop


class Choice(NamedTuple):
    train: Sequence[int]
    eval: Sequence[int]


def choose_parts(splits: Collection[str], settings: Settings) -> tuple[Part, Part | None]:
    """Return what is trained on and what is evaluated; None: rows of the former are held out."""
    train = _part(settings.dataset_train_split, "--dataset_train_split", splits, settings)
    name = settings.dataset_test_split
    if name is None and settings.eval_fraction is None:
        name = next((name for name in EVAL_SPLITS if name in splits and name != train.split), None)
    return train, None if name is None else _part(name, "--dataset_test_split", splits, settings)


def _part(text: str, flag: str, splits: Collection[str], settings: Settings) -> Part:
    found = _parse(text, flag)
    if found.split not in splits:
        otherwise = ", or use --eval_fraction 0.1" if flag == "--dataset_test_split" else ""
        raise BadInputError(
            f"`{flag}`={text!r} is no split of {settings.dataset_name}, which has "
            f"{', '.join(sorted(splits))}. Fix: name one of these{otherwise}."
        )
    return found


def _parse(text: str, flag: str) -> Part:
    told = PART.fullmatch(text).groupdict()  # type: ignore[union-attr]
    if len({told[f"{bound}_in"] for bound in ("start", "stop") if told[bound]}) > 1:
        raise BadInputError(
            f"`{flag}`={text!r} has one bound in percent and one in rows. Fix: give both alike, such as train[10%:20%]."
        )
    start, stop = (int(told[bound]) if told[bound] else None for bound in ("start", "stop"))
    return Part(told["split"], start, stop, bool(told["start_in"] or told["stop_in"]))


def disjoint(train: Part, held_out: Part, count: int) -> None:
    """Refuse two parts of one split that share rows."""
    ranges = [part.range_of(count) for part in (train, held_out)]
    shared = min(rows.stop for rows in ranges) - max(rows.start for rows in ranges)
    if train.split == held_out.split and shared > 0:
        raise BadInputError(
            f"`--dataset_train_split`={str(train)!r} and `--dataset_test_split`={str(held_out)!r} share {shared} rows; "
            "a model is not judged by what it was trained on. Fix: choose parts that lie beside each other."
        )


def hold_out(rows: Sequence[int], identities: Sequence[int], settings: Settings) -> Choice:
    """Return training and evaluation rows; no row is in both, even when the data repeats it."""
    fraction = settings.eval_fraction or DEFAULT_EVAL_FRACTION
    held_out = _subset(len(rows), max(1, round(fraction * len(rows))), settings.split_seed)
    known = {identities[index] for index in held_out}
    train = array("q", (row for row, identity in zip(rows, identities, strict=True) if identity not in known))
    if not train:
        raise BadInputError(
            f"Of the {len(rows)} rows of {settings.dataset_name} none is left to train on once {len(held_out)} "
            "are held out for evaluation (equal rows count as one). Fix: give more rows or a smaller "
            "--eval_fraction."
        )
    return Choice(train, array("q", (rows[index] for index in held_out)))


def within_limits(train: Sequence[int], held_out: Sequence[int], settings: Settings) -> Choice:
    """Return the rows that --train_fraction, --max_train_samples and --max_eval_samples leave."""
    share = max(1, round(settings.train_fraction * len(train)))
    return Choice(
        _some_of(train, min(share, settings.max_train_samples or share), settings.split_seed),
        _some_of(held_out, settings.max_eval_samples or len(held_out), settings.split_seed),
    )


def _some_of(rows: Sequence[int], count: int, seed: int) -> Sequence[int]:
    return rows if count >= len(rows) else array("q", (rows[index] for index in _subset(len(rows), count, seed)))


def _subset(total: int, count: int, seed: int) -> Sequence[int]:
    """Return ``count`` indices in their order; with the same seed, fewer are a part of more."""
    order = array("q", range(total))
    random.Random(seed).shuffle(order)  # noqa: S311  not for secrets
    return array("q", sorted(order[:count]))
