"""Rows packed into longer ones (`--packing true`): an entry of the cache like the rows they are made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmtune_trainer.cache import Cache
from llmtune_trainer.settings import Settings

FILE = "train.arrow"
COLUMNS = ["input_ids", "labels"]


def packs(settings: Settings) -> bool:
    return bool(settings.hyperparameters.get("packing"))


def packed(rows: Any, key: Mapping[str, Any], settings: Settings, cache: Cache) -> Path:
    """Return the file of the packed rows.

    :param rows: a datasets.Dataset.
    :param key: that of these rows; the length is part of it.
    """
    strategy = settings.hyperparameter("packing_strategy")

    def build(folder: Path) -> None:
        for left in folder.iterdir():  # half written by a builder who died
            left.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries deprecate each other's options
            # Some seconds, as it imports torch.
            from trl import pack_dataset

            # Without a file of its own the library would write beside the rows, into what others share.
            options = {"cache_file_name": str(folder / FILE)}
            pack_dataset(rows.select_columns(COLUMNS), settings.max_length, strategy, options)

    return cache.get("packed", {"rows": key, "strategy": strategy, "trl": version("trl")}, build) / FILE
