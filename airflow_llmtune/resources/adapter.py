"""Which LoRA adapters vLLM can serve, of those that PEFT can train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.meta import path, whole

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["check_servable", "read_rank"]

# What vLLM takes as --max-lora-rank.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# The trainer's, which a manifest leaves out; it is vLLM's default as well.
_DEFAULT_RANK = 16
# A setting of the trainer, the texts of those of its values that can be served, and what the others would be.
_SERVABLE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "task": (("sft", "dpo"), "makes no model that generates text"),
    "use_peft": (("true",), "makes no adapter: give its output as `model`"),
    "lora_bias": (("none",), "trains biases, which vLLM does not load"),
    "lora_modules_to_save": (("none", "", "[]"), "saves whole modules, which vLLM does not load"),
    "use_dora": (("false",), "makes a DoRA adapter, which vLLM does not load"),
}


def read_rank(value: Any, adapter: Any, problems: Problems) -> int | None:
    """The rank that the server has to be ready for, rounded up to what vLLM takes."""
    if value is None:
        return None
    rank = problems.integer("max_lora_rank", value, at_least=1)
    if adapter is None:
        problems.add("max_lora_rank", value, "needs an adapter", "give `adapter`, or leave it out")
    return _rounded("max_lora_rank", rank, problems)


def check_servable(manifest: Any, most: int | None, problems: Problems) -> int | None:
    """
    Note what of an adapter, of which its trainer tells this, no server can load.

    :return: the rank to be ready for; ``most``, which the author gave, if there is no reason for another.
    """
    if not isinstance(manifest, Mapping | None):
        fix = 'give `fine_tune.output["manifest"]`, say, or leave it out'
        problems.add("adapter_manifest", manifest, "is not what a trainer tells of its run", fix)
    parameters = path(manifest, "parameters") or {}
    for name, (good, rule) in _SERVABLE.items():
        value = parameters.get(name)
        if value is not None and str(value).lower() not in good:
            fix = "train without it, or with merge_adapter=true and serve the merged model"
            problems.add(f"adapter_manifest.parameters.{name}", value, rule, fix)
    rank = _largest_rank(parameters)
    where = "adapter_manifest.parameters.lora_r"
    if rank is None or most is None:
        return most if rank is None else _rounded(where, rank, problems)
    if rank > most:
        problems.add(where, rank, f"is more than `max_lora_rank`={most}", "leave that out: it follows from the adapter")
    return most


def _largest_rank(parameters: Mapping[str, Any]) -> int | None:
    pattern = path(parameters, "lora_rank_pattern") or {}
    if not pattern:
        return whole(parameters.get("lora_r"))
    return max(rank for rank in map(whole, (parameters.get("lora_r", _DEFAULT_RANK), *pattern.values())) if rank)


def _rounded(argument: str, rank: int | None, problems: Problems) -> int | None:
    if rank is not None and rank > _RANKS[-1]:
        problems.add(argument, rank, f"is more than vLLM's {_RANKS[-1]}", "train with a lower lora_r")
        return None
    return None if rank is None else next(known for known in _RANKS if known >= rank)
