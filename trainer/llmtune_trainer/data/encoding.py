"""What an encoder takes and gives. Each task has one: encode_sft, encode_classification, encode_preference.

An encoder gets one row at a time, after data/formats.py has checked it and brought it into one of these shapes:

* sft: ``{"text"}``, ``{"prompt", "completion"}`` (texts; without a chat template ``"gap"`` stands between them),
  ``{"messages", "first"}`` (answers from that index on are learned; ``"tools"`` where the data has them), or
  ``{"input_ids"}`` with ``"labels"`` or ``"completion_mask"`` where the data has them;
* classification: ``{"text", "label"}`` and ``"text_pair"`` where there is one; a label is a text or a list of texts;
* dpo: ``{"prompt", "chosen", "rejected"}``, each a text or a list of messages; no ``prompt`` where the data has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

Row = dict[str, Any]
NOT_LEARNED = -100


class Encoded(NamedTuple):
    examples: list[Row]  # none: nothing of the row is left to learn
    cut_tokens: int = 0  # what --max_length cost
    problem: str | None = None  # the row is malformed, which only the tokenizer could tell


class Encoder(Protocol):
    """Made as ``Encoder(tokenizer, settings, labels)``."""

    def __call__(self, row: Row) -> Encoded: ...
