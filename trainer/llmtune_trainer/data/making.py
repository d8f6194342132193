"""The making of prepared data: every row is read, checked and chosen first.

Only then is there a tokenizer, which costs the import of torch: a wrong row or split is told in a second.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmtune_trainer.data.encoding import Encoder
from llmtune_trainer.data.files import class_names, find_splits, read_rows
from llmtune_trainer.data.formats import Format, format_of
from llmtune_trainer.data.rows import Chosen, Malformed, Rows, collect
from llmtune_trainer.data.splits import Part, choose_parts, disjoint, hold_out, within_limits
from llmtune_trainer.data.writing import Written, fingerprint_in, write_examples, write_nothing
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.refusals import loading
from llmtune_trainer.settings import Settings

ENCODERS = {
    "sft": ("encode_sft", "SftEncoder"),
    "classification": ("encode_classification", "ClassificationEncoder"),
    "dpo": ("encode_preference", "PreferenceEncoder"),
}
ROWS_LOOKED_AT = 1000


@dataclass(frozen=True)
class Preparation:
    settings: Settings
    data: Path
    model: Path
    only_eval: bool = False

    def write(self, folder: Path) -> None:
        # Not in the folder itself: it may lie on a network's disk, and this is read once and goes.
        with TemporaryDirectory(prefix="llmtune-rows-") as checked:
            self._write(folder, Path(checked))

    def _write(self, folder: Path, checked: Path) -> None:
        splits = find_splits(self.data, self.settings.dataset_config, name=self.settings.dataset_name)
        row_format, train, held_out = self._check(splits, checked)
        labels = self._labels([train, held_out], splits[train.split])
        train, held_out = self._limited(train, held_out)
        tokenizer = self._tokenizer()
        written = self._encode(train, held_out, self._encoder(tokenizer, labels), folder)
        report = self._report(row_format.name, written, [train, held_out])
        told = {
            "report": report | {"learns_to_end": tokenizer.eos_token_id is not None},
            "labels": labels,
            "fingerprint": fingerprint_in(folder / "eval.arrow"),
        }
        (folder / "report.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    # --- rows -----------------------------------------------------------------------------------------------

    def _check(self, splits: Mapping[str, Sequence[Path]], checked: Path) -> tuple[Format, Chosen, Chosen]:
        """Return the format, what is trained on and what is evaluated."""
        train_part, eval_part = choose_parts(splits, self.settings)
        row_format = self._format(splits[train_part.split])
        parts = [train_part] if eval_part is None else [train_part, eval_part]
        rows = {
            name: collect(islice(read_rows(splits[name]), _last_needed(name, parts)), row_format, checked / str(number))
            for number, name in enumerate({part.split: None for part in parts})
        }
        return row_format, *self._choose(rows, train_part, eval_part)

    def _format(self, files: Sequence[Path]) -> Format:
        looked_at = islice(read_rows(files), ROWS_LOOKED_AT)
        rows = (raw.row for raw in looked_at if raw.problem is None and isinstance(raw.row, dict))
        return format_of(rows, self.settings.task, self.settings.dataset_name)

    def _choose(self, rows: Mapping[str, Rows], train_part: Part, eval_part: Part | None) -> tuple[Chosen, Chosen]:
        train = self._part(train_part, rows)
        if eval_part is None:
            numbers = hold_out(train.numbers, train.rows.identities(train.numbers), self.settings)
            return train._replace(numbers=numbers.train), train._replace(
                numbers=numbers.eval, malformed=Malformed(0, None)
            )
        disjoint(train_part, eval_part, len(rows[train_part.split]))
        return train, self._part(eval_part, rows)

    def _part(self, part: Part, rows: Mapping[str, Rows]) -> Chosen:
        found = rows[part.split]
        among = part.range_of(len(found))
        malformed = found.malformed(among)
        self._refuse(malformed, len(among), part.split)
        chosen = Chosen(part.split, found, found.good(among), malformed)
        if not chosen.numbers:
            raise BadInputError(
                f"The split {part} of {self.settings.dataset_name} is empty. "
                "Fix: `--dataset_train_split` or `--dataset_test_split` another split."
            )
        return chosen

    def _refuse(self, malformed: Malformed, count: int, split: str) -> None:
        share = self.settings.max_malformed_fraction
        if malformed.rows > share * count:
            raise BadInputError(
                f"{malformed.rows} of {count} rows of the split {split!r} are malformed, more than "
                f"`--max_malformed_fraction`={share:g} allows. The first: {malformed.first}. "
                "Fix: correct or remove them, or raise --max_malformed_fraction to train without them."
            )

    def _limited(self, train: Chosen, held_out: Chosen) -> tuple[Chosen, Chosen]:
        numbers = within_limits(train.numbers, held_out.numbers, self.settings)
        return train._replace(numbers=numbers.train), held_out._replace(numbers=numbers.eval)

    def _labels(self, chosen: Sequence[Chosen], files: Sequence[Path]) -> list[str]:
        """Return the classes in the order of the data's own list, else sorted, numbers as numbers."""
        if self.settings.task != "classification":
            return []
        given = [row["label"] for part in chosen for row in part.rows.take(part.numbers)]
        if len({type(label) for label in given}) > 1:
            raise BadInputError(
                f"Some rows of {self.settings.dataset_name} have one class and others a list of them. "
                "Fix: give each row a list, also of one class or of none."
            )
        labels = {name for label in given for name in (label if isinstance(label, list) else [label])}
        if len(labels) < 2:
            raise BadInputError(
                f"All rows of {self.settings.dataset_name} are of one class ({', '.join(labels)}): there is nothing to "
                "tell apart. Fix: give rows of other classes too."
            )
        for names in class_names(files[0]).values():
            if labels <= set(names):
                return names
        return sorted(labels, key=int if all(label.lstrip("-").isdecimal() for label in labels) else None)

    # --- tokens ---------------------------------------------------------------------------------------------

    def _tokenizer(self) -> Any:
        # Five seconds, as it imports torch.
        from transformers import AutoTokenizer

        with loading(self.settings, self.model):
            return AutoTokenizer.from_pretrained(self.model)

    def _encoder(self, tokenizer: Any, labels: Sequence[str]) -> Encoder:
        module, name = ENCODERS[self.settings.task]
        make = getattr(importlib.import_module(f"llmtune_trainer.data.{module}"), name)
        encoder: Encoder = make(tokenizer, replace(self.settings, max_length=self._length), tuple(labels))
        return encoder

    @property
    def _length(self) -> int:
        return min(self.settings.max_length, _positions(self.model))

    def _encode(self, train: Chosen, held_out: Chosen, encoder: Encoder, folder: Path) -> dict[str, Written]:
        written = {"eval": self._encode_part(held_out, encoder, folder / "eval.arrow", "evaluation")}
        if self.only_eval:
            write_nothing(written["eval"].schema, folder / "train.arrow")
            return written | {"train": Written()}
        return written | {"train": self._encode_part(train, encoder, folder / "train.arrow", "training")}

    def _encode_part(self, chosen: Chosen, encoder: Encoder, file: Path, name: str) -> Written:
        written = write_examples(chosen, encoder, file)
        found = Malformed(written.malformed, written.first_malformed)
        self._refuse(found, len(chosen.numbers), chosen.split)
        if not written.rows:
            limit = limit_told(self._length, self.settings)
            raise BadInputError(
                f"No token of the {name} rows is left to learn: every prompt fills {limit}. Fix: raise --max_length, "
                "or take a model of longer texts."
            )
        return written

    def _report(self, row_format: str, written: Mapping[str, Written], chosen: Sequence[Chosen]) -> dict[str, Any]:
        everything = list(written.values())
        firsts = [*(part.malformed.first for part in chosen), *(one.first_malformed for one in everything)]
        return {
            "format": row_format,
            "rows": {name: one.rows for name, one in written.items()},
            "malformed": {
                "rows": sum(part.malformed.rows for part in chosen) + sum(one.malformed for one in everything),
                "first": next(filter(None, firsts), None),
            },
            "truncated": {
                "rows": sum(one.cut_rows for one in everything),
                "tokens": sum(one.cut_tokens for one in everything),
                "length": self._length,
            },
            "dropped": {"rows": sum(one.dropped for one in everything)},
            "tokens": {name: one.tokens for name, one in written.items()},
        }


def limit_told(length: int, settings: Settings) -> str:
    return f"--max_length {length}" if length == settings.max_length else f"the {length} tokens that the model takes"


def _last_needed(split: str, parts: Sequence[Part]) -> int | None:
    """Return how many rows of a split are looked at; None: all."""
    needed = [part.last_needed for part in parts if part.split == split]
    return None if None in needed else max(needed)  # type: ignore[type-var]


def _positions(model: Path) -> int:
    """Return how many tokens the model takes at once."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 1 << 40)
