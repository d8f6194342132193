"""Flags that must not be beside each other, or not alone: as ``schema.json`` has it, judged by trainer and operator.

The operator has an evaluation of its own, as it imports nothing of the trainer; a test has both judge the same flags.
What this language cannot say is in ``contradictions``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RULES", "Rule"]

# Of a flag, or of an object its keys; no words: it is given.
Words = tuple[str | bool | int, ...]


@dataclass(frozen=True)
class Rule:
    """Each of ``flags`` is a mistake that is given while all of ``beside`` holds and nothing of ``without``.

    In both a flag is one of the words, or is given when there are none. In ``why`` and ``fix``, ``{name}`` is a flag.
    """

    flags: tuple[str, ...]  # `lora_*`: all that begin so
    why: str
    fix: str
    beside: Mapping[str, Words] = field(default_factory=dict)
    without: Mapping[str, Words] = field(default_factory=dict)

    @property
    def others(self) -> set[str]:
        """What its flags are judged by."""
        return {*self.beside, *self.without}

    def broken_by(self, values: Mapping[str, Any], default_of: Callable[[str], Any]) -> list[str]:
        """Return those of its flags that are a mistake."""

        def holds(name: str, words: Words) -> bool:
            return _is_one_of(values.get(name, default_of(name)), words) if words else _is_given(values.get(name))

        if all(holds(*each) for each in self.beside.items()) and not any(holds(*each) for each in self.without.items()):
            return [name for name in self.flags if _is_given(values.get(name))]
        return []

    def told_of(self, flag: str, value: str) -> str:
        return f"`--{flag}`={value} {_filled(self.why)}. Fix: {_filled(self.fix)}."

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value != {}}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Rule:
        tables = {
            key: {name: tuple(words) for name, words in told.get(key, {}).items()} for key in ("beside", "without")
        }
        return cls(tuple(told["flags"]), told["why"], told["fix"], **tables)


def _is_given(value: Any) -> bool:
    """To say `false` or `none` is as good as to say nothing."""
    return value is not None and value is not False


def _is_one_of(value: Any, words: Words) -> bool:
    parts = value if isinstance(value, list | dict) else [value]
    return any(part in words for part in parts)


def _filled(text: str) -> str:
    return re.sub(r"\{(\w+)\}", r"--\1", text)


RULES = (
    Rule(
        ("eval_fraction",),
        beside={"dataset_test_split": ()},
        why="contradicts {dataset_test_split}",
        fix="give one of the two",
    ),
    Rule(
        ("warmup_ratio",),
        beside={"warmup_steps": ()},
        why="and {warmup_steps} say the same in two ways",
        fix="give one of the two",
    ),
    Rule(
        ("lora_*", "use_rslora", "use_dora", "merge_adapter", "load_in_4bit", "load_in_8bit"),
        beside={"use_peft": (False,)},
        why="is about an adapter, and {use_peft} false trains none",
        fix="leave one of the two out",
    ),
    Rule(
        ("load_in_4bit",),
        beside={"load_in_8bit": ()},
        why="contradicts {load_in_8bit}",
        fix="give one of the two",
    ),
    Rule(
        ("merge_adapter",),
        without={"output_dir": ()},
        why="has no place for the model",
        fix="give {output_dir}, or leave it out",
    ),
    Rule(
        ("lora_init_lora_weights",),
        beside={"lora_init_lora_weights": ("loftq",)},
        without={"lora_loftq_config": ()},
        why="is half of LoftQ",
        fix="give {lora_loftq_config} as well, or none of the two",
    ),
    Rule(
        ("lora_loftq_config",),
        without={"lora_init_lora_weights": ("loftq",)},
        why="is half of LoftQ",
        fix="give {lora_init_lora_weights} loftq as well, or none of the two",
    ),
    Rule(
        ("lora_layers_pattern",),
        without={"lora_layers_to_transform": ()},
        why="only says where the layers are that {lora_layers_to_transform} chooses",
        fix="give both, or none",
    ),
    Rule(
        ("lora_layers_to_transform",),
        beside={"lora_target_modules": ("all-linear",)},
        why="needs the modules by name, and not all-linear",
        fix="give such as {lora_target_modules} q_proj,v_proj",
    ),
    # What these courses of the learning rate cannot do without.
    Rule(
        ("lr_scheduler_type",),
        beside={"lr_scheduler_type": ("cosine_with_min_lr", "cosine_warmup_with_min_lr")},
        without={"lr_scheduler_kwargs": ("min_lr_rate", "min_lr")},
        why="needs min_lr_rate or min_lr",
        fix="for example {lr_scheduler_kwargs} '{\"min_lr_rate\": 0.1}'",
    ),
    Rule(
        ("lr_scheduler_type",),
        beside={"lr_scheduler_type": ("warmup_stable_decay",)},
        without={"lr_scheduler_kwargs": ("num_decay_steps",)},
        why="needs num_decay_steps",
        fix="for example {lr_scheduler_kwargs} '{\"num_decay_steps\": 100}'",
    ),
    Rule(
        ("lr_scheduler_type",),
        beside={"lr_scheduler_type": ("reduce_lr_on_plateau",)},
        without={"eval_steps": ()},
        why="looks at evaluations",
        fix="give {eval_steps}",
    ),
    Rule(
        ("dataloader_prefetch_factor", "dataloader_persistent_workers"),
        beside={"dataloader_num_workers": (0,)},
        why="is about workers, and there are none",
        fix="give {dataloader_num_workers}, or leave it out",
    ),
    Rule(
        ("evaluate_base_model", "sample_prompt"),
        beside={"fsdp": (True,)},
        why="needs the whole model before training begins, and {fsdp} shards it",
        fix="leave it out; `evaluate` gives the loss of the model without an adapter",
    ),
    Rule(
        ("load_in_8bit",),
        beside={"fsdp": (True,)},
        why="makes weights that {fsdp} cannot shard",
        fix="use {load_in_4bit}, or leave one of the two out",
    ),
    Rule(("fsdp_config",), without={"fsdp": ()}, why="says how {fsdp} shards the model", fix="give both, or none"),
    Rule(
        ("cache_max_bytes",),
        without={"cache_dir": ()},
        why="bounds no cache",
        fix="give {cache_dir}, or leave it out",
    ),
    Rule(
        ("save_steps",),
        without={"output_dir": (), "checkpoint_dir": ()},
        why="has no place for its checkpoints",
        fix="give {output_dir} or {checkpoint_dir}",
    ),
    Rule(
        ("checkpoint_dir",),
        without={"save_steps": ()},
        why="stays empty",
        fix="give {save_steps}, or leave it out",
    ),
    Rule(
        ("keep_checkpoints",),
        without={"checkpoint_dir": ()},
        why="has no place",
        fix="give {checkpoint_dir} and {save_steps}",
    ),
    Rule(
        ("checkpoint_dir",),
        beside={"keep_checkpoints": (True,)},
        without={"max_steps": ()},
        why="keeps checkpoints for runs of other {max_steps}, and there is none",
        fix="give {max_steps}, or leave it out",
    ),
)
