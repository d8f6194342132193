"""Attention within each row of a flat batch, without a mask over all of its tokens.

In a flat batch the rows lie end to end. Where no FlashAttention is, transformers keeps them apart by a mask of all
tokens times all tokens, so that the cost grows with the square of the batch; row by row it grows with that of a row.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ROW_BY_ROW = "llmtune_row_by_row"
PLAIN_LAYERS = {"full_attention", "sliding_attention"}
# In tokens. On a CPU torch's kernel for bfloat16 takes a millisecond to go back through a row of 48; that for
# float32 is up to three times as fast, and slower only for long rows.
SHORT_ROW = 256


def attend_row_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    row_lengths: list[int] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    if row_lengths is None and attention_mask is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    whole = (query, key, value)
    rows = zip(*(part.split(row_lengths, dim=2) for part in whole), strict=True) if row_lengths else [whole]
    return torch.cat([_attend(module, *row, **options) for row in rows], dim=1), None


def _attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or key.shape[2] > SHORT_ROW:
        return sdpa_attention_forward(module, query, key, value, None, **options)[0]
    with torch.autocast("cpu", enabled=False):  # which would have it in bfloat16 again
        exact = (part.float() for part in (query, key, value))
        return sdpa_attention_forward(module, *exact, None, **options)[0].to(query.dtype)


def takes_flat_batches(model: Any) -> bool:
    """Whether rows that lie end to end, told apart by position_ids, are kept apart in all layers."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or PLAIN_LAYERS)
    takes_positions = "position_ids" in inspect.signature(type(model).forward).parameters
    # Where a model has attention of its own only (GPT-OSS), the mask that keeps rows apart is not heeded.
    keeps_apart = model._supports_sdpa or config._attn_implementation == "flash_attention_2"
    attends = model._supports_attention_backend and not model._is_stateful
    return bool(takes_positions and keeps_apart and attends and layers <= PLAIN_LAYERS)


def attends_row_by_row(model: Any, longest: int) -> bool:
    """Whether causal attention within a row is all that the model's layers do, for rows of this length."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return bool(window is None or window >= longest)


AttentionInterface.register(ROW_BY_ROW, attend_row_by_row)
