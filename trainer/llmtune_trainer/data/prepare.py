"""Data as a trainer takes it, made once and shared by all trials that want the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtune_trainer.cache import Cache
from llmtune_trainer.data.making import Preparation, limit_told
from llmtune_trainer.data.packing import packed, packs
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import Fetched

# Goes up when the same data and settings would give other examples.
VERSION = 2
# What the tokens depend on, of the files of a model.
TOKENIZER_FILES = (
    "config.json",
    "*token*.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "additional_chat_templates/*",
)
DEPENDS_ON = (
    "task",
    "dataset_config",
    "max_length",
    "dataset_train_split",
    "dataset_test_split",
    "eval_fraction",
    "split_seed",
    "train_fraction",
    "max_train_samples",
    "max_eval_samples",
    "max_malformed_fraction",
)


@dataclass(frozen=True)
class Prepared:
    train: Any  # datasets.Dataset, memory-mapped: the columns of the task's encoder and `length`, or see packing.py
    eval: Any  # the same, never packed, short rows first
    report: Mapping[str, Any]
    labels: tuple[str, ...]  # the names of the classes
    fingerprint: str  # of the evaluation rows as the loss sees them


def prepare(
    settings: Settings,
    data: Fetched,
    model: Fetched,
    cache: Cache,
    say: Callable[[str], None],
    *,
    only_eval: bool = False,
) -> Prepared:
    """With ``only_eval`` no training row is tokenised, and ``train`` is empty."""
    preparation = Preparation(settings, data.path, model.path, only_eval=only_eval)
    key = _key(settings, data, model, only_eval=only_eval)
    folder = cache.get("prepared", key, preparation.write)
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    remarks = list(_remarks(told["report"], settings))
    for remark in remarks:
        say(remark)
    train, held_out = (_opened(folder / f"{name}.arrow") for name in ("train", "eval"))
    if packs(settings):
        train = _opened(packed(train, key, settings, cache))
    # Rows of like length side by side need less padding; the loss is the same in any order.
    order = held_out.data.column("length").to_numpy().argsort(kind="stable")
    report = told["report"] | {"remarks": remarks}
    return Prepared(train, held_out.select(order), report, tuple(told["labels"]), told["fingerprint"])


def _remarks(report: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    malformed, truncated, dropped = report["malformed"], report["truncated"], report["dropped"]["rows"]
    if malformed["rows"]:
        yield f"malformed rows left out: {malformed['rows']}; the first: {malformed['first']}"
    if truncated["rows"]:
        limit = limit_told(truncated["length"], settings)
        yield f"rows cut off at {limit}: {truncated['rows']}, by {truncated['tokens']} tokens in all"
    if settings.task != "classification" and not report["learns_to_end"]:
        yield "the tokenizer has no end-of-text token (eos_token): the model is not taught where an answer ends"
    if dropped:
        yield f"rows left out, as nothing to learn was left of them: {dropped}"


def _opened(file: Path) -> Any:
    # A second that a wrong row has not cost.
    from datasets import Dataset

    return Dataset.from_file(str(file))


def _key(settings: Settings, data: Fetched, model: Fetched, *, only_eval: bool) -> dict[str, Any]:
    return {
        "version": VERSION,
        "data": data.version,
        "tokenizer": _digest_of_tokenizer(model.path),
        "completion_only_loss": settings.hyperparameters.get("completion_only_loss"),
        "only_eval": only_eval,
        **{name: getattr(settings, name) for name in DEPENDS_ON},
    }


def _digest_of_tokenizer(folder: Path) -> str:
    files = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(
            f"{file.relative_to(folder).as_posix()}\t{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()
