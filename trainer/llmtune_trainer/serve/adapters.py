"""Which adapters are served: vLLM's rules, so that what is served here is served by vLLM on a cluster as well.

Pure: an adapter's configuration and the shapes of its tensors in, problems out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmtune_trainer.serve.flags import LORA_RANKS

PREFIX = "base_model.model."


def config_problems(config: Mapping[str, Any], max_rank: int) -> list[str]:
    kind = config.get("peft_type")
    if kind != "LORA":
        return [f"its peft_type is {kind!r}, and only LORA is served. Fix: train a LoRA adapter."]
    problems = []
    rank = max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])
    if rank > max_rank:
        problems.append(f"its rank {rank} is above `--max-lora-rank`={max_rank}. Fix: {_rank_fix(rank)}.")
    if config.get("bias", "none") != "none":
        problems.append(f"its bias is {config['bias']!r}, which must be 'none'. Fix: train it with bias='none'.")
    if config.get("modules_to_save"):
        whole = ", ".join(config["modules_to_save"])
        problems.append(
            f"its modules_to_save holds whole layers ({whole}), and only LoRA's matrices are served. "
            "Fix: train it without modules_to_save, or merge it into the base model."
        )
    if config.get("use_dora"):
        problems.append("it is a DoRA adapter (use_dora). Fix: train it without, or merge it into the base model.")
    return problems


def _rank_fix(rank: int) -> str:
    enough = next((allowed for allowed in LORA_RANKS if allowed >= rank), None)
    return f"give --max-lora-rank={enough}" if enough else f"train it with a rank of at most {LORA_RANKS[-1]}"


def shape_problem(
    adapter: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, int]], trained_on: str | None
) -> str | None:
    """Compare the adapter's tensors with the base model's layers, given as (width in, width out)."""
    fix = f"Fix: serve it with the base model it was trained on{f' ({trained_on})' if trained_on else ''}."
    if not adapter:
        return "it holds no tensor. Fix: save the adapter again."
    for tensor, shape in adapter.items():
        layer, _, matrix = tensor.removeprefix(PREFIX).partition(".lora_")
        if layer not in base:
            return f"the base model has no layer {layer!r}, which it adapts. {fix}"
        side = {"A.weight": 0, "B.weight": 1}.get(matrix)
        if side is None:
            return f"its tensor {tensor!r} is none of LoRA's two matrices of a linear layer. Fix: adapt linear layers."
        width = shape[1 - side]
        if width != base[layer][side]:
            return f"its layer {layer!r} is {width} wide where the base model's is {base[layer][side]}. {fix}"
    return None
