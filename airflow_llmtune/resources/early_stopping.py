"""Early stopping: a trial that is worse than those before it were at its age is ended by Katib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_llmtune.resources import train_job
from airflow_llmtune.resources.problems import Problems, did_you_mean
from airflow_llmtune.resources.trainer_flags import is_of_trainer

if TYPE_CHECKING:
    from airflow_llmtune.resources.trainer_spec import TrainerSpec

__all__ = ["EarlyStopping", "check_reports"]

# All that Katib has, with its settings: counts, all of them.
_ALGORITHMS: Mapping[str, tuple[str, ...]] = {"medianstop": ("min_trials_required", "start_step")}
_NAME = "algorithm_name"
_SETTINGS = tuple(setting for settings in _ALGORITHMS.values() for setting in settings)
# Of our own trainer.
_EVAL_FLAG = "eval_steps"
_WITHOUT_EVALUATION = ("train_loss",)


class EarlyStopping(NamedTuple):
    algorithm_name: str
    settings: Mapping[str, str]

    @classmethod
    def read(cls, given: Any, problems: Problems) -> EarlyStopping | None:
        if given is None:
            return None
        before = len(problems.errors)
        options = problems.mapping("early_stopping", given)
        if len(problems.errors) > before:
            return None
        name = problems.choice(f"early_stopping.{_NAME}", options.pop(_NAME, None), _ALGORITHMS)
        settings = {key: _read_setting(key, value, problems) for key, value in options.items()}
        return cls(name or next(iter(_ALGORITHMS)), settings)

    def to_manifest(self) -> dict[str, Any]:
        made: dict[str, Any] = {"algorithmName": self.algorithm_name}
        if self.settings:
            made["algorithmSettings"] = [{"name": key, "value": value} for key, value in self.settings.items()]
        return made


def _read_setting(name: str, value: Any, problems: Problems) -> str:
    where = f"early_stopping.{name}"
    if name in _SETTINGS:
        return str(problems.integer(where, value, at_least=1))
    problems.add(where, value, "is not known", did_you_mean(name, (_NAME, *_SETTINGS)))
    return ""


def check_reports(given: EarlyStopping | None, objective: str, trainer: TrainerSpec, problems: Problems) -> None:
    """Whether Katib can see how a trial fares while it runs, and end all of it."""
    if given is None:
        return
    if trainer.pushes_metrics:
        rule = "cannot work with `trainer_args.metrics_push`: what stops a trial is Katib's reader of its output"
        problems.add("early_stopping", given.algorithm_name, rule, "leave one of the two out")
    elif is_of_trainer(trainer.image) and _EVAL_FLAG not in trainer.flags and objective not in _WITHOUT_EVALUATION:
        rule = f"is missing: without it a trial reports {objective or 'its objective'} at its end only"
        fix = "give such as 50, a part of the trial's steps, or leave `early_stopping` out"
        problems.add(f"trainer_args.{_EVAL_FLAG}", None, rule, fix)
    if _outlives_its_first_node(trainer):
        rule = (
            f"leaves nodes behind: `early_stopping` ends a trial's first, and the runtime {train_job.DEFAULT_RUNTIME} "
            "starts the others again, which wait for it"
        )
        fix = "give job_kind='PyTorchJob', one node, or a runtime_ref whose pods have restartPolicy Never"
        problems.add("job_options.num_nodes", trainer.num_nodes, rule, fix)


def _outlives_its_first_node(trainer: TrainerSpec) -> bool:
    """Katib ends the container that reports; a PyTorchJob ends with it."""
    is_shipped = trainer.runtime_ref["name"] == train_job.DEFAULT_RUNTIME
    several = trainer.job_kind == train_job.KIND.kind and trainer.num_nodes > 1
    return is_of_trainer(trainer.image) and several and is_shipped
