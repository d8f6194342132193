"""What is wrong with settings that are right one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["contradictions"]

Values = Mapping[str, Any]
# What these courses of the learning rate cannot do without: one of the keys of lr_scheduler_kwargs.
_SCHEDULER_KEYS: Mapping[str, Mapping[str, float]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1, "min_lr": 1e-6},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "min_lr": 1e-6},
    "warmup_stable_decay": {"num_decay_steps": 100},
}
_LORA = ("lora_", "use_rslora", "use_dora", "merge_adapter", "load_in_")


def contradictions(values: Values, mode: str) -> list[str]:
    """Judge what was given and is of the right type; what was not given is at its default."""
    checks = [_of_splits, _of_warmup, _of_weights, _of_scheduler, _of_data, _of_places]
    if mode == "train":
        checks.append(_of_checkpoints)
    return [mistake for check in checks for mistake in check(values)]


def _said(name: str, values: Values) -> str:
    value = values[name]
    return f"`--{name}`={str(value).lower() if isinstance(value, bool) else repr(value)}"


def _of_splits(values: Values) -> list[str]:
    test = values.get("dataset_test_split")
    if not test:
        return []
    found = []
    if "eval_fraction" in values:
        found.append(
            f"{_said('eval_fraction', values)} contradicts {_said('dataset_test_split', values)}. "
            "Fix: give one of the two."
        )
    train = values.get("dataset_train_split", "train")
    # Two parts of one split may lie beside each other; whether they do shows in the data.
    if test.partition("[")[0] == train.partition("[")[0] and not ("[" in test and "[" in train and test != train):
        found.append(
            f"{_said('dataset_test_split', values)} is the training split, or a part of it; a model is not judged by "
            "what it was trained on. Fix: name another split, or use --eval_fraction 0.1."
        )
    return found


def _of_warmup(values: Values) -> list[str]:
    if "warmup_steps" not in values or "warmup_ratio" not in values:
        return []
    both = f"{_said('warmup_ratio', values)} and {_said('warmup_steps', values)}"
    return [f"{both} say the same in two ways. Fix: give one of the two."]


def _of_weights(values: Values) -> list[str]:
    found = []
    if not values.get("use_peft", True):
        found += [
            f"{_said(name, values)} is about an adapter, and --use_peft false trains none. "
            "Fix: leave one of the two out."
            for name, value in values.items()
            if name.startswith(_LORA) and value is not False
        ]
    if values.get("load_in_4bit") and values.get("load_in_8bit"):
        found.append("`--load_in_4bit`=true contradicts `--load_in_8bit`=true. Fix: give one of the two.")
    if values.get("merge_adapter") and not values.get("output_dir"):
        found.append("`--merge_adapter`=true has no place for the model. Fix: give --output_dir, or leave it out.")
    if (values.get("lora_init_lora_weights") == "loftq") != ("lora_loftq_config" in values):
        name = "lora_loftq_config" if "lora_loftq_config" in values else "lora_init_lora_weights"
        found.append(
            f"{_said(name, values)} is half of LoftQ. Fix: give both --lora_init_lora_weights loftq and "
            "--lora_loftq_config, or none."
        )
    if "lora_layers_pattern" in values and "lora_layers_to_transform" not in values:
        found.append(
            f"{_said('lora_layers_pattern', values)} only says where the layers are that --lora_layers_to_transform "
            "chooses. Fix: give both, or none."
        )
    if "lora_layers_to_transform" in values and values.get("lora_target_modules", "all-linear") == "all-linear":
        found.append(
            f"{_said('lora_layers_to_transform', values)} needs the modules by name, and not all-linear. "
            "Fix: give such as --lora_target_modules q_proj,v_proj."
        )
    return found


def _of_scheduler(values: Values) -> list[str]:
    kind, given = values.get("lr_scheduler_type"), values.get("lr_scheduler_kwargs") or {}
    keys = _SCHEDULER_KEYS.get(str(kind), {})
    if keys and not keys.keys() & given.keys():
        example = json.dumps(dict([next(iter(keys.items()))]))
        needs = f"{_said('lr_scheduler_type', values)} needs {' or '.join(keys)}"
        return [f"{needs}. Fix: for example --lr_scheduler_kwargs '{example}'."]
    if kind == "reduce_lr_on_plateau" and "eval_steps" not in values:
        return [f"{_said('lr_scheduler_type', values)} looks at evaluations. Fix: give --eval_steps."]
    return []


def _of_data(values: Values) -> list[str]:
    weights = values.get("loss_weights")
    kinds = values.get("loss_type")
    if weights is not None and len(weights) != (len(kinds) if isinstance(kinds, list) else 1):
        return [f"{_said('loss_weights', values)} has not one weight for each of --loss_type. Fix: give as many."]
    return []


def _of_places(values: Values) -> list[str]:
    if "cache_max_bytes" in values and "cache_dir" not in values:
        return [f"{_said('cache_max_bytes', values)} bounds no cache. Fix: give --cache_dir, or leave it out."]
    if "cache_max_bytes" in values and values["cache_dir"].startswith("s3://"):
        bound = f"{_said('cache_max_bytes', values)} cannot bound {_said('cache_dir', values)}"
        return [f"{bound}: nobody sees who reads there. Fix: leave it out, and give the prefix a lifecycle rule."]
    return []


def _of_checkpoints(values: Values) -> list[str]:
    if "save_steps" in values and "output_dir" not in values and "checkpoint_dir" not in values:
        homeless = f"{_said('save_steps', values)} has no place for its checkpoints"
        return [f"{homeless}. Fix: give --output_dir or --checkpoint_dir."]
    if "checkpoint_dir" in values and "save_steps" not in values:
        return [f"{_said('checkpoint_dir', values)} stays empty. Fix: give --save_steps, or leave it out."]
    if values.get("keep_checkpoints") and "checkpoint_dir" not in values:
        return [f"{_said('keep_checkpoints', values)} has no place. Fix: give --checkpoint_dir and --save_steps."]
    if values.get("keep_checkpoints") and "max_steps" not in values:
        rule = "keeps them for runs of other --max_steps, and there is none"
        return [f"{_said('keep_checkpoints', values)} {rule}. Fix: give --max_steps, or leave it out."]
    return []
