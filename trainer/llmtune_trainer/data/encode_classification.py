"""Rows of classification: a text (or a pair of texts) and its class, or the list of its classes."""

from __future__ import annotations

from typing import Any

from llmtune_trainer.data.encoding import Encoded, Row
from llmtune_trainer.settings import Settings


class ClassificationEncoder:
    """Cuts the end of what is too long, and keeps the tokens that the tokenizer puts around a text."""

    def __init__(self, tokenizer: Any, settings: Settings, labels: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        # BERT knows 512 positions, and its tokenizer says so.
        self.max_length = min(settings.max_length, tokenizer.model_max_length)
        self.numbers = {name: number for number, name in enumerate(labels)}

    def __call__(self, row: Row) -> Encoded:
        texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        whole = self.tokenizer(*texts)
        tokens = len(whole["input_ids"])
        if tokens > self.max_length:
            whole = self.tokenizer(*texts, truncation=True, max_length=self.max_length)
        example = {"input_ids": whole["input_ids"], "label": self._label(row["label"])}
        if len(texts) > 1 and "token_type_ids" in whole:
            example["token_type_ids"] = whole["token_type_ids"]
        return Encoded([example], max(0, tokens - self.max_length))

    def _label(self, label: str | list[str]) -> int | list[float]:
        if isinstance(label, str):
            return self.numbers[label]
        return [float(name in label) for name in self.numbers]
