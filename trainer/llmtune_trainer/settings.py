"""The settings: what is ours as a field each, the libraries' hyperparameters by name; all mistakes are told at once.

Values arrive as strings (Katib knows nothing else), as a flag ``--learning_rate 2e-4`` or as the environment
variable ``LLMTUNE_LEARNING_RATE``; a flag wins. Only the standard library is imported, so that a typo costs no
import of torch: what the libraries take is read from ``schema.json``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from llmtune_trainer.contradictions import contradictions
from llmtune_trainer.errors import BadInputError
from llmtune_trainer.flags import Flag, Kind, load, text_of
from llmtune_trainer.given import ENV_PREFIX, Names, from_arguments, from_environment
from llmtune_trainer.kinds import (
    ABOVE_ONE,
    ALPHA,
    MODULES,
    NOT_NEGATIVE,
    PART,
    POSITIVE,
    RATIO,
    SHARE,
    SIZE,
    SPLIT,
    YES_NO,
    a_choice,
    a_text,
    alpha_of,
    an_integer,
    bytes_of,
)

Mode = Literal["train", "evaluate"]
TASKS = ("sft", "classification", "dpo")
LANGUAGE_TASKS = ("sft", "dpo")
# The libraries' SchedulerType, which schema.py compares with this.
LR_SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)
# Of no weight for what comes out; an evaluation takes them as well.
HOUSEKEEPING = ("cache_dir", "cache_max_bytes", "max_malformed_fraction", "metrics_format", "metrics_push")
# Told apart from what a run is, as the place of a volume or of an output changes with the pod.
ADDRESSES = (
    *HOUSEKEEPING,
    "model_name_or_path",
    "model_revision",
    "dataset_name",
    "adapter",
    "sample_prompt",
    "output_dir",
    "checkpoint_dir",
    "keep_checkpoints",
)


class SettingsError(BadInputError):
    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        lines = "".join(f"\n  {number}. {mistake}" for number, mistake in enumerate(self.mistakes, 1))
        super().__init__(f"The settings have {count} mistake{'s' if count != 1 else ''}:{lines}")


def _option(
    kind: Kind,
    help_: str,
    default: Any = MISSING,
    *,
    tasks: tuple[str, ...] = TASKS,
    evaluates: bool = False,
    searched: bool = True,
) -> Any:
    about = {"kind": kind, "help": help_, "tasks": tasks, "evaluates": evaluates, "searched": searched}
    return field(default=default, metadata=about)


def _of_evaluation(kind: Kind, help_: str, default: Any = MISSING, *, searched: bool = False) -> Any:
    """What the loss of a given model depends on, and how it is computed; trials that differ in it do not compare."""
    return _option(kind, help_, default, evaluates=True, searched=searched)


def _of_run(kind: Kind, help_: str, default: Any, *, tasks: tuple[str, ...] = TASKS) -> Any:
    """What becomes of a run, and no hyperparameter."""
    return _option(kind, help_, default, tasks=tasks, searched=False)


@dataclass(frozen=True)
class Settings:
    model_name_or_path: str = _of_evaluation(
        a_text("org/model"),
        "the model to tune: a folder, hf://org/model[@revision] (or org/model), or s3://bucket/prefix",
    )
    dataset_name: str = _of_evaluation(
        a_text("s3://bucket/data"),
        "json, jsonl, csv, parquet or arrow file, a folder of such files or of save_to_disk, hf://org/data[@revision], "
        "or s3://bucket/prefix",
    )
    dataset_config: str | None = _of_evaluation(
        a_text("main"), "the configuration, of data whose README.md names several; by default the default one", None
    )
    task: str = _of_evaluation(
        a_choice(*TASKS),
        "sft: a causal language model learns its rows; classification: one class a row; dpo: preferences",
        "sft",
    )
    model_revision: str | None = _of_evaluation(a_text("main"), "branch, tag or commit on the Hub", None)
    dataset_train_split: str = _of_evaluation(
        SPLIT, "the split to train on, or a part of it: train[:1000], train[10%:20%]", "train", searched=True
    )
    dataset_test_split: str | None = _of_evaluation(
        SPLIT, "the split to evaluate on, or a part of it; by default one called validation, eval or test", None
    )
    eval_fraction: float | None = _of_evaluation(
        PART, "hold out this part of the training split instead; 0.1 when there is no other split", None
    )
    split_seed: int = _of_evaluation(
        an_integer(0, "42"), "picks the rows of eval_fraction, train_fraction and max_*_samples; leave it alone", 42
    )
    train_fraction: float = _option(SHARE, "train on this part of the training rows", 1.0)
    max_train_samples: int | None = _option(an_integer(1, "1000"), "train on at most so many rows", None)
    max_eval_samples: int | None = _of_evaluation(an_integer(1, "256"), "evaluate on at most so many rows", None)
    learning_rate: float = _option(POSITIVE, "peak learning rate", 2e-4)
    num_train_epochs: float = _option(POSITIVE, "passes over the training rows", 1.0)
    max_steps: int | None = _option(an_integer(1, "100"), "optimiser steps; wins over num_train_epochs", None)
    per_device_train_batch_size: int = _option(an_integer(1, "8"), "rows a process trains on at once", 8)
    per_device_eval_batch_size: int = _of_evaluation(
        an_integer(1, "8"), "rows a process evaluates at once", 8, searched=True
    )
    gradient_accumulation_steps: int = _option(an_integer(1, "1"), "batches to one optimiser step", 1)
    warmup_ratio: float = _option(RATIO, "share of the steps in which the learning rate rises", 0.03)
    weight_decay: float = _option(NOT_NEGATIVE, "AdamW's weight decay", 0.01)
    lr_scheduler_type: str = _option(a_choice(*LR_SCHEDULERS), "course of the learning rate", "cosine")
    lora_r: int = _option(an_integer(1, "16"), "rank of the adapter", 16)
    lora_alpha: float = _option(
        ALPHA, "the adapter is scaled by lora_alpha / lora_r; also as a multiple of the rank: r, 2r, 0.5r", 32.0
    )
    lora_dropout: float = _option(RATIO, "dropout in front of the adapter", 0.0)
    lora_target_modules: str | Sequence[str] = _option(
        MODULES, "the layers that get an adapter: all-linear, or names separated by commas", "all-linear"
    )
    max_length: int = _of_evaluation(
        an_integer(2, "1024"), "longest row in tokens; the rest is cut off", 1024, searched=True
    )
    seed: int = _option(an_integer(0, "42"), "seed of the adapter's first weights, the order of rows and dropout", 42)
    dtype: str = _of_evaluation(
        a_choice("bfloat16", "float32"), "type of the model's frozen weights", "bfloat16", searched=True
    )
    use_peft: bool = _option(YES_NO, "train a LoRA adapter; false: all weights of the model", True)
    load_in_4bit: bool = _of_evaluation(
        YES_NO, "QLoRA: hold the frozen weights in 4 bit; needs bitsandbytes", False, searched=True
    )
    load_in_8bit: bool = _of_evaluation(
        YES_NO, "hold the frozen weights in 8 bit; needs bitsandbytes", False, searched=True
    )
    merge_adapter: bool = _of_run(
        YES_NO, "also save the model with the adapter merged into it, in merged/ beside the adapter", False
    )
    eval_steps: int | None = _of_run(an_integer(1, "50"), "evaluate every so many steps, not only at the end", None)
    evaluate_base_model: bool = _of_run(YES_NO, "report base_eval_loss, the loss before training", False)
    on_divergence: str = _of_run(
        a_choice("fail", "report"),
        "when the loss diverges: fail, or report the worst of each metric (eval_loss 1e9) and exit 0",
        "fail",
    )
    divergence_ratio: float | None = _of_run(
        ABOVE_ONE,
        "two train losses in a row above so many times the first ones count as divergence; none: only one that is not "
        "finite",
        3.0,
    )
    sample_prompt: str | None = _of_run(
        a_text("What is LoRA?"), "a prompt to complete before and after training", None, tasks=LANGUAGE_TASKS
    )
    max_new_tokens: int = _of_run(
        an_integer(1, "64"), "longest completion of sample_prompt in tokens", 64, tasks=LANGUAGE_TASKS
    )
    output_dir: str | None = _of_run(
        a_text("s3://bucket/adapter"),
        "where what was trained goes: a folder or s3://bucket/prefix; none: not saved",
        None,
    )
    save_steps: int | None = _of_run(
        an_integer(1, "200"), "save a checkpoint every so many steps; the same command goes on from the newest", None
    )
    save_total_limit: int = _of_run(an_integer(1, "1"), "keep so many checkpoints; after success none", 1)
    checkpoint_dir: str | None = _of_run(
        a_text("s3://bucket/checkpoints"), "where checkpoints go; by default .checkpoints below output_dir", None
    )
    keep_checkpoints: bool = _of_run(
        YES_NO,
        "leave the newest checkpoint in a folder of its own below checkpoint_dir, so that a run that differs in "
        "max_steps only goes on from it (hyperband)",
        False,
    )
    adapter: str | None = _of_evaluation(
        a_text("s3://bucket/adapter"),
        "evaluate only: the adapter, or a whole model that was trained, in the forms of model_name_or_path; none: the "
        "model without one",
        None,
    )
    cache_dir: str | None = _of_run(
        a_text("/cache"), "a folder or s3://bucket/prefix that keeps downloads and prepared data for other runs", None
    )
    cache_max_bytes: int | None = _of_run(
        SIZE, "the most that cache_dir may hold; what was not used for longest goes first", None
    )
    max_malformed_fraction: float = _of_run(
        RATIO, "refuse the data when more of its rows than this are malformed", 0.01
    )
    metrics_format: str = _of_run(
        a_choice("text", "json"), "how metrics are written: name=value lines, or JSON objects for Katib's JSON", "text"
    )
    metrics_push: bool = _of_run(YES_NO, "report metrics to Katib's DB manager as well, for its collector Push", False)
    # Every other field of the libraries' classes that was given, by the name of its flag.
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def checkpoint_place(self) -> str | None:
        if self.save_steps is None:
            return None
        return self.checkpoint_dir or f"{(self.output_dir or '').rstrip('/')}/.checkpoints"

    def chosen(self) -> dict[str, Any]:
        """Return what differs from the defaults, without what says where things lie."""
        own = {flag.name: getattr(self, flag.name) for flag in OWN_FLAGS if flag.name not in ADDRESSES}
        changed = {name: value for name, value in own.items() if value != getattr(Settings, name, None)}
        return {**changed, **self.hyperparameters}

    def hyperparameter(self, name: str) -> Any:
        """Return what was chosen for a flag of the libraries, or its default."""
        return self.hyperparameters.get(name, load().find(name, self.task).default)

    def passed_to(self, class_name: str) -> dict[str, Any]:
        """Return the hyperparameters that this class has a field for, by its own names."""
        return {
            str(flag.field): self.hyperparameters[flag.name]
            for flag in load().flags
            if class_name in flag.classes and flag.name in self.hyperparameters
        }


REQUIRED = tuple(option.name for option in fields(Settings) if option.default is MISSING and option.metadata)
OWN_FLAGS = tuple(
    Flag(name=option.name, default=None if option.name in REQUIRED else option.default, **option.metadata)
    for option in fields(Settings)
    if option.metadata
)


def evaluation_settings() -> tuple[str, ...]:
    """Return what an evaluation depends on."""
    return tuple(dict.fromkeys(flag.name for flag in load().flags if flag.evaluates))


def parse_settings(arguments: Sequence[str], environ: Mapping[str, str], mode: Mode = "train") -> Settings:
    mistakes: list[str] = []
    names = Names(load().names, load().names | load().refused.keys())
    given = from_environment(environ, names, mistakes) | from_arguments(arguments, names, mistakes)
    task = given["task"][1].strip() if "task" in given else Settings.task
    values: dict[str, Any] = {}
    for name, (source, text) in given.items():
        try:
            values[name] = _judged(name, source, text, task, mode)
        except ValueError as mistake:
            mistakes.append(str(mistake))
    mistakes += [
        f"`--{flag.name}` is missing. Fix: {_example(flag)}."
        for flag in OWN_FLAGS
        if flag.name in REQUIRED and flag.name not in given
    ]
    mistakes += contradictions(values, given.keys() - values.keys())
    if mistakes:
        raise SettingsError(mistakes)
    return _settings(values)


def _judged(name: str, source: str, text: str, task: str, mode: Mode) -> Any:
    """Return the value; raises ValueError with the whole mistake."""
    schema = load()
    if name in schema.refused:
        raise ValueError(f"`{source}` cannot be set: {schema.refused[name]}")  # and may hold a token
    flag = schema.find(name, task)
    if mode == "train" and name == "adapter":
        raise ValueError(f"`{source}` is of `evaluate` only. Fix: write evaluate first, or leave it out.")
    if mode == "evaluate" and not flag.evaluates and name not in HOUSEKEEPING:
        raise ValueError(f"`{source}`={text!r} has no part in an evaluation. Fix: leave it out.")
    if task in TASKS and task not in flag.tasks:
        others = " or ".join(flag.tasks)
        raise ValueError(f"`{source}`={text!r} is of --task {others}, and this is {task}. Fix: leave it out.")
    try:
        return flag.kind.cast(text)
    except ValueError:
        near = difflib.get_close_matches(text, [word for word in flag.kind.choices if isinstance(word, str)], n=1)
        fix = f"did you mean {near[0]}?" if near else f"{_example(flag)}."
        raise ValueError(f"`{source}`={text!r} {flag.kind.rule()}. Fix: {fix}") from None


def _settings(values: Mapping[str, Any]) -> Settings:
    own = {flag.name: values[flag.name] for flag in OWN_FLAGS if flag.name in values}
    if isinstance(alpha := own.get("lora_alpha"), str):
        own["lora_alpha"] = alpha_of(alpha, own.get("lora_r", Settings.lora_r))
    if isinstance(size := own.get("cache_max_bytes"), str):
        own["cache_max_bytes"] = bytes_of(size)
    others = {name: value for name, value in values.items() if name not in own}
    if others.get("loss_type") == "dft":  # as tokens become likelier, it rises before it falls
        own.setdefault("divergence_ratio", None)
    return Settings(**own, hyperparameters=others)


def usage() -> str:
    lines = [
        "usage: llmtune-trainer --model_name_or_path MODEL --dataset_name DATA [--SETTING VALUE ...]",
        "       llmtune-trainer evaluate --model_name_or_path MODEL --dataset_name DATA [--adapter ADAPTER] [...]",
        "",
        *_listed(flag for flag in load().flags if not flag.classes),
        "",
        "Hyperparameters of TrainingArguments, SFTConfig, DPOConfig and LoraConfig:",
        *_listed(flag for flag in load().flags if flag.classes),
        "",
        "evaluate takes of these:",
        *(f"  --{name}" for name in (*evaluation_settings(), *HOUSEKEEPING)),
    ]
    return "\n".join([*lines, "", f"Each setting can also come from the environment, e.g. {ENV_PREFIX}LEARNING_RATE."])


def _listed(flags: Iterable[Flag]) -> list[str]:
    return [f"  --{flag.name}  ({_default(flag)}{_of_tasks(flag)})\n      {flag.help}" for flag in flags]


def _default(flag: Flag) -> str:
    return "required" if flag.name in REQUIRED else f"default: {text_of(flag.default)}"


def _of_tasks(flag: Flag) -> str:
    return "" if flag.tasks == TASKS else "; " + ", ".join(flag.tasks)


def _example(flag: Flag) -> str:
    return f"for example --{flag.name} {flag.kind.example}"
