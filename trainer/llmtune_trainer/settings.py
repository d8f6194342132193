"""The settings, each with type, rule and help in one place; every mistake is reported, not only the first.

Values arrive as strings (Katib knows nothing else), as a flag ``--learning_rate 2e-4`` or as the environment
variable ``LLMTUNE_LEARNING_RATE``; a flag wins. Only the standard library is imported, so that a typo costs no
import of torch.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

from llmtune_trainer.errors import BadInputError

ENV_PREFIX = "LLMTUNE_"
Mode = Literal["train", "evaluate"]
# What the loss of a given model depends on, and how it is computed.
EVALUATION_SETTINGS = (
    "model_name_or_path",
    "model_revision",
    "adapter",
    "dataset_name",
    "dataset_train_split",
    "dataset_test_split",
    "eval_fraction",
    "split_seed",
    "max_eval_samples",
    "per_device_eval_batch_size",
    "max_length",
    "dtype",
)
LR_SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")

# Told apart from what a run is, as the place of a volume or of an output changes with the pod.
ADDRESSES = (
    "model_name_or_path",
    "model_revision",
    "dataset_name",
    "adapter",
    "sample_prompt",
    "output_dir",
    "checkpoint_dir",
)


class SettingsError(BadInputError):
    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        lines = "".join(f"\n  {number}. {mistake}" for number, mistake in enumerate(self.mistakes, 1))
        super().__init__(f"The settings have {count} mistake{'s' if count != 1 else ''}:{lines}")


@dataclass(frozen=True)
class Rule:
    """How a string becomes a value; ``cast`` raises ValueError when it breaks what ``text`` states."""

    cast: Callable[[str], Any]
    text: str
    example: str


def _rule(cast: Callable[[str], Any], text: str, example: str, accepts: Callable[[Any], bool] = lambda _: True) -> Rule:
    def checked(value: str) -> Any:
        result = cast(value.strip())
        if not accepts(result):
            raise ValueError(value)
        return result

    return Rule(checked, text, example)


def _text(example: str) -> Rule:
    return _rule(str, "must not be empty", example, bool)


def _integer(minimum: int, example: str) -> Rule:
    return _rule(int, f"must be a whole number of at least {minimum}", example, lambda value: value >= minimum)


def _number(text: str, example: str, accepts: Callable[[float], bool]) -> Rule:
    return _rule(float, f"must be {text}", example, lambda value: math.isfinite(value) and accepts(value))


def _choice(*words: str) -> Rule:
    return _rule(str, f"must be one of {', '.join(words)}", words[0], lambda value: value in words)


def _boolean(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in words:
        raise ValueError(value)
    return words[value.lower()]


def _module_names(value: str) -> str | tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise ValueError(value)
    return "all-linear" if names == ("all-linear",) else names


_POSITIVE = _number("a number above 0", "2e-4", lambda value: value > 0)
_NOT_NEGATIVE = _number("a number of at least 0", "0.01", lambda value: value >= 0)
_SHARE = _number("a number above 0 and at most 1", "0.25", lambda value: 0 < value <= 1)
_PART = _number("a number above 0 and below 1", "0.1", lambda value: 0 < value < 1)
_RATIO = _number("a number from 0 to below 1", "0.05", lambda value: 0 <= value < 1)
_YES_NO = _rule(_boolean, "must be true or false", "true")


def _option(rule: Rule, help_: str, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"rule": rule, "help": help_})


@dataclass(frozen=True)
class Settings:
    model_name_or_path: str = _option(
        _text("org/model"),
        "the model to tune: a folder, hf://org/model (or org/model), or s3://bucket/prefix",
    )
    dataset_name: str = _option(
        _text("s3://bucket/data"),
        "json, jsonl, csv or parquet file, a folder of such files or of save_to_disk, hf://org/data, or s3://bucket/prefix",
    )
    model_revision: str | None = _option(_text("main"), "branch, tag or commit on the Hub", None)
    dataset_train_split: str = _option(_text("train"), "the split to train on", "train")
    dataset_test_split: str | None = _option(
        _text("validation"), "the split to evaluate on; by default one called validation, eval or test", None
    )
    eval_fraction: float | None = _option(
        _PART, "hold out this part of the training split instead; 0.1 when there is no other split", None
    )
    split_seed: int = _option(
        _integer(0, "42"),
        "picks the rows of eval_fraction, train_fraction and max_*_samples; leave it alone",
        42,
    )
    train_fraction: float = _option(_SHARE, "train on this part of the training rows", 1.0)
    max_train_samples: int | None = _option(_integer(1, "1000"), "train on at most so many rows", None)
    max_eval_samples: int | None = _option(_integer(1, "256"), "evaluate on at most so many rows", None)
    learning_rate: float = _option(_POSITIVE, "peak learning rate", 2e-4)
    num_train_epochs: float = _option(_POSITIVE, "passes over the training rows", 1.0)
    max_steps: int | None = _option(_integer(1, "100"), "optimiser steps; wins over num_train_epochs", None)
    per_device_train_batch_size: int = _option(_integer(1, "8"), "rows a process trains on at once", 8)
    per_device_eval_batch_size: int = _option(_integer(1, "8"), "rows a process evaluates at once", 8)
    gradient_accumulation_steps: int = _option(_integer(1, "1"), "batches to one optimiser step", 1)
    warmup_ratio: float = _option(_RATIO, "share of the steps in which the learning rate rises", 0.03)
    weight_decay: float = _option(_NOT_NEGATIVE, "AdamW's weight decay", 0.01)
    lr_scheduler_type: str = _option(_choice(*LR_SCHEDULERS), "course of the learning rate", "cosine")
    lora_r: int = _option(_integer(1, "16"), "rank of the adapter", 16)
    lora_alpha: float = _option(_POSITIVE, "the adapter is scaled by lora_alpha / lora_r", 32.0)
    lora_dropout: float = _option(_RATIO, "dropout in front of the adapter", 0.0)
    lora_target_modules: str | tuple[str, ...] = _option(
        _rule(_module_names, "must be all-linear or module names separated by commas", "q_proj,v_proj"),
        "the layers that get an adapter: all-linear, or names separated by commas",
        "all-linear",
    )
    max_length: int = _option(_integer(2, "1024"), "longest row in tokens; the rest is cut off", 1024)
    seed: int = _option(_integer(0, "42"), "seed of the adapter's first weights, the order of rows and dropout", 42)
    dtype: str = _option(_choice("bfloat16", "float32"), "type of the model's frozen weights", "bfloat16")
    eval_steps: int | None = _option(_integer(1, "50"), "evaluate every so many steps, not only at the end", None)
    evaluate_base_model: bool = _option(_YES_NO, "report base_eval_loss, the loss before training", False)
    on_divergence: str = _option(
        _choice("fail", "report"),
        "when the loss is not finite: fail, or report eval_loss 1e9 and exit 0",
        "fail",
    )
    sample_prompt: str | None = _option(_text("What is LoRA?"), "a prompt to complete before and after training", None)
    max_new_tokens: int = _option(_integer(1, "64"), "longest completion of sample_prompt in tokens", 64)
    output_dir: str | None = _option(
        _text("s3://bucket/adapter"),
        "where the adapter goes: a folder or s3://bucket/prefix; none: not saved",
        None,
    )
    save_steps: int | None = _option(
        _integer(1, "200"), "save a checkpoint every so many steps; the same command goes on from the newest", None
    )
    save_total_limit: int = _option(_integer(1, "1"), "keep so many checkpoints; after success none", 1)
    checkpoint_dir: str | None = _option(
        _text("s3://bucket/checkpoints"), "where checkpoints go; by default .checkpoints below output_dir", None
    )
    adapter: str | None = _option(
        _text("s3://bucket/adapter"),
        "evaluate only: the adapter, in the forms of model_name_or_path; none: the model without one",
        None,
    )

    @property
    def checkpoint_place(self) -> str | None:
        if self.save_steps is None:
            return None
        return self.checkpoint_dir or f"{(self.output_dir or '').rstrip('/')}/.checkpoints"

    def chosen(self) -> dict[str, Any]:
        """Return what differs from the defaults, without what says where things lie."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name not in ADDRESSES and getattr(self, option.name) != option.default
        }


def parse_settings(arguments: Sequence[str], environ: Mapping[str, str], mode: Mode = "train") -> Settings:
    mistakes: list[str] = []
    given = _from_environment(environ, mistakes) | _from_arguments(arguments, mistakes)
    mistakes.extend(_misplaced(given, mode))
    values: dict[str, Any] = {}
    for option in fields(Settings):
        if option.name in given:
            source, text = given[option.name]
            try:
                values[option.name] = option.metadata["rule"].cast(text)
            except ValueError:
                mistakes.append(_broken_rule(option, source, text))
        elif option.default is MISSING:
            mistakes.append(f"`--{option.name}` is missing. Fix: {_example(option)}.")
    mistakes.extend(_contradictions(values))
    if mistakes:
        raise SettingsError(mistakes)
    return Settings(**values)


def usage() -> str:
    lines = [
        "usage: llmtune-trainer --model_name_or_path MODEL --dataset_name DATA [--SETTING VALUE ...]",
        "       llmtune-trainer evaluate --model_name_or_path MODEL --dataset_name DATA [--adapter ADAPTER] [...]",
        "",
    ]
    for option in fields(Settings):
        default = "required" if option.default is MISSING else f"default: {_shown(option.default)}"
        lines.append(f"  --{option.name}  ({default})\n      {option.metadata['help']}")
    lines += ["", "evaluate takes of these:"]
    lines += [f"  --{name}" for name in EVALUATION_SETTINGS]
    return "\n".join([*lines, "", f"Each setting can also come from the environment, e.g. {ENV_PREFIX}LEARNING_RATE."])


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _example(option: Field[Any]) -> str:
    return f"for example --{option.name} {option.metadata['rule'].example}"


def _broken_rule(option: Field[Any], source: str, value: str) -> str:
    return f"`{source}`={value!r} {option.metadata['rule'].text}. Fix: {_example(option)}."


def _from_arguments(arguments: Sequence[str], mistakes: list[str]) -> dict[str, tuple[str, str]]:
    """Return setting name -> (how it was given, value)."""
    known = {option.name for option in fields(Settings)}
    given: dict[str, tuple[str, str]] = {}
    rest = list(arguments)
    while rest:
        flag, has_value, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--")
        if not flag.startswith("--"):
            mistakes.append(f"{flag!r} is no flag. Fix: write --NAME VALUE, with quotes around a value with spaces.")
            continue
        if not has_value:
            if not rest or rest[0].startswith("--"):
                mistakes.append(f"`{flag}` has no value. Fix: {_usage_of(name)}.")
                continue
            value = rest.pop(0)
        if name not in known:
            mistakes.append(f"`{flag}` is unknown. Fix: {_did_you_mean(name, known)}.")
        elif name in given:
            mistakes.append(f"`{flag}` is given twice ({given[name][1]!r}, {value!r}). Fix: leave one out.")
        else:
            given[name] = (flag, value)
    return given


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, tuple[str, str]]:
    """Empty variables count as not set. Other tools use the prefix too, so only near misses are mistakes."""
    known = {option.name for option in fields(Settings)}
    given: dict[str, tuple[str, str]] = {}
    for variable, value in environ.items():
        name = variable.removeprefix(ENV_PREFIX).lower()
        if not variable.startswith(ENV_PREFIX) or not value:
            continue
        if name in known:
            given[name] = (variable, value)
        elif near := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            mistakes.append(f"`{variable}` is unknown. Fix: did you mean {ENV_PREFIX}{near[0].upper()}?")
    return given


def _did_you_mean(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"did you mean --{near[0]}?" if near else "--help lists all settings"


def _usage_of(name: str) -> str:
    for option in fields(Settings):
        if option.name == name:
            return _example(option)
    return f"write --{name} VALUE"


def _misplaced(given: Mapping[str, tuple[str, str]], mode: Mode) -> list[str]:
    if mode == "train":
        flag = given.get("adapter", ("", ""))[0]
        return [f"`{flag}` is of `evaluate` only. Fix: write evaluate first, or leave it out."] if flag else []
    return [
        f"`{flag}`={value!r} has no part in an evaluation. Fix: leave it out."
        for name, (flag, value) in given.items()
        if name not in EVALUATION_SETTINGS
    ]


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    found = []
    test_split = values.get("dataset_test_split")
    if test_split and "eval_fraction" in values:
        found.append(
            f"`--eval_fraction`={values['eval_fraction']} contradicts `--dataset_test_split`={test_split!r}. "
            "Fix: give one of the two."
        )
    if test_split and test_split == values.get("dataset_train_split", "train"):
        found.append(
            f"`--dataset_test_split`={test_split!r} is the training split; a model is not judged by what "
            "it was trained on. Fix: name another split, or use --eval_fraction 0.1."
        )
    if "save_steps" in values and "output_dir" not in values and "checkpoint_dir" not in values:
        found.append(
            f"`--save_steps`={values['save_steps']} has no place for its checkpoints. "
            "Fix: give --output_dir or --checkpoint_dir."
        )
    if "checkpoint_dir" in values and "save_steps" not in values:
        found.append(
            f"`--checkpoint_dir`={values['checkpoint_dir']!r} stays empty. Fix: give --save_steps, or leave it out."
        )
    return found
