"""The metrics that our own trainer reports: of which task, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_llmtune.resources.problems import Problems, did_you_mean
from airflow_llmtune.resources.trainer_flags import DEFAULT_TASK, PUSH_FLAG, TASK_FLAG, is_of_trainer

if TYPE_CHECKING:
    from airflow_llmtune.resources.experiment import ExperimentSpec
    from airflow_llmtune.resources.trainer_spec import TrainerSpec

__all__ = ["OBJECTIVES", "check_metrics"]

_LOW, _HIGH = "minimize", "maximize"
_FORMAT_FLAG, _TEXT = "metrics_format", "text"
# What a search may be after, by task; tests/trainer compares it with what the trainer reports.
OBJECTIVES: Mapping[str, Mapping[str, str]] = {
    "sft": {"eval_loss": _LOW, "eval_perplexity": _LOW, "eval_token_accuracy": _HIGH},
    "classification": {"eval_loss": _LOW, "eval_accuracy": _HIGH, "eval_f1": _HIGH},
    "dpo": {"eval_loss": _LOW, "eval_rewards_accuracy": _HIGH, "eval_rewards_margin": _HIGH},
}
_OF_EACH = {"train_loss": _LOW, "train_tokens_per_second": _HIGH, "peak_memory_bytes": _LOW}
_ONLY_TOLD = ("base_eval_loss", "epoch", "learning_rate")
# Settings that a metric is computed with: trials that differ in them do not compare.
_YARDSTICKS = {"beta": ("eval_loss", "eval_rewards_margin")}


def check_metrics(spec: ExperimentSpec, trainer: TrainerSpec, problems: Problems) -> None:
    """Another image's metrics are its own."""
    task = trainer.flags.get(TASK_FLAG, DEFAULT_TASK)
    if not is_of_trainer(trainer.image):
        return
    if trainer.flags.get(_FORMAT_FLAG, _TEXT) != _TEXT and not trainer.pushes_metrics:
        rule = "is not what Katib's log collector reads, and so no trial would have a metric"
        fix = f"leave it out, or give `trainer_args.{PUSH_FLAG}`"
        problems.add(f"trainer_args.{_FORMAT_FLAG}", trainer.flags[_FORMAT_FLAG], rule, fix)
    if task not in OBJECTIVES or TASK_FLAG in spec.space.names:
        return
    known = {**OBJECTIVES[task], **_OF_EACH}
    objective = spec.objective_metric_name
    if objective and objective not in known:
        _note_unknown("objective_metric_name", objective, task, list(known), problems)
    elif objective and spec.objective_type != known[objective]:
        fix = f"give objective_type={known[objective]!r}"
        rule = f"searches for the worst {objective}"
        problems.add("objective_type", spec.objective_type, rule, fix)
    for name in spec.additional_metric_names:
        if name and name not in (*known, *_ONLY_TOLD):
            _note_unknown("additional_metric_names", name, task, [*known, *_ONLY_TOLD], problems)
    for name, moved in _YARDSTICKS.items():
        if name in spec.space.names and objective in moved:
            rule = f"is searched, and {objective} is computed with it: trials would not compare"
            fix = "search something else, or take objective_metric_name='eval_rewards_accuracy'"
            problems.add(f"parameters.{name}", name, rule, fix)


def _note_unknown(argument: str, name: str, task: str, known: Sequence[str], problems: Problems) -> None:
    problems.add(argument, name, f"is not reported by a training of task {task}", did_you_mean(name, known))
