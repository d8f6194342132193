"""What ``--fsdp_config`` may say of FSDP2; the libraries pass over in silence what they do not know."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from llmtune_trainer.flags import Kind

__all__ = ["mistakes_in"]

_YES_NO = Kind("boolean")
_KINDS: Mapping[str, Kind] = {
    "activation_checkpointing": _YES_NO,
    "auto_wrap_policy": Kind("choice", choices=("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP")),
    "cpu_offload": _YES_NO,
    "cpu_ram_efficient_loading": _YES_NO,
    "min_num_params": Kind("integer", minimum=0),
    "reshard_after_forward": _YES_NO,
    # Weights in parts are what nobody puts together when the training is over.
    "state_dict_type": Kind("choice", choices=("FULL_STATE_DICT",)),
    "transformer_layer_cls_to_wrap": Kind("list", "text"),
    "version": Kind("choice", choices=("2",)),
}


def mistakes_in(config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with each key of ``--fsdp_config``."""
    found = ((name, value, _mistake(name, value)) for name, value in config.items())
    return [f"`--fsdp_config`: {name}={value!r} {mistake}" for name, value, mistake in found if mistake]


def _mistake(name: str, value: Any) -> str | None:
    kind = _KINDS.get(name.removeprefix("fsdp_"))  # which transformers takes off, too
    if kind is None:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        fix = f"did you mean {near[0]}?" if near else f"give some of {', '.join(_KINDS)}."
        return f"is nothing that FSDP2 knows. Fix: {fix}"
    if isinstance(value, str) and kind.type in ("boolean", "integer"):
        # To the libraries the text "false" is true.
        return f"{kind.rule()}, and this is a text. Fix: write it without quotes."
    try:
        kind.cast(value if isinstance(value, str) else json.dumps(value))
    except ValueError:
        return f"{kind.rule()}. Fix: correct it, or leave it out."
    return None
