"""Trains one model, or an adapter of it, with the trainer of the task, and evaluates it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, set_seed

from llmtune_trainer.arguments import check_sharding
from llmtune_trainer.checkpoints import Checkpoints
from llmtune_trainer.data.prepare import Prepared
from llmtune_trainer.errors import DivergedError, TrainerError
from llmtune_trainer.generate import complete
from llmtune_trainer.metrics import Log
from llmtune_trainer.model import load_model
from llmtune_trainer.progress import Pace, Progress, evaluated
from llmtune_trainer.refusals import as_bad_input, making_trainer
from llmtune_trainer.settings import Settings
from llmtune_trainer.tasks import make_trainer, worst


@dataclass
class Outcome:
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    diverged: bool = False
    prompt: str | None = None
    before: str | None = None
    after: str | None = None

    def samples(self) -> dict[str, str] | None:
        if self.prompt is None or self.before is None:
            return None
        return {"prompt": self.prompt, "before": self.before, "after": self.after or ""}


class _Checkpointing(TrainerCallback):  # type: ignore[misc]
    """Stores what the trainer saves; once SIGTERM has come, at the end of the step, which is then the last."""

    def __init__(self, checkpoints: Checkpoints, log: Log) -> None:
        self.checkpoints = checkpoints
        self.log = log
        self.trainer: Any = None
        self.told_to_stop = False

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGTERM)

        def note(*_: object) -> None:
            self.told_to_stop = True
            signal.signal(signal.SIGTERM, before)  # who sends it twice will not wait

        signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.told_to_stop = any(_from_all(self.trainer, int(self.told_to_stop)))
        if self.told_to_stop:
            control.should_save = control.should_training_stop = True
        if state.global_step >= state.max_steps:
            # Only the evaluation is left; the library would train on from here. A longer run goes on from it.
            control.should_save = self.checkpoints.for_longer_runs
        # A loss is logged as the mean since the last log. A resumed run knows of none before its checkpoint.
        control.should_log |= control.should_save

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.trainer.accelerator.wait_for_everyone()  # each process writes a part
        if not self.log.speaks:
            return
        step = state.global_step
        try:
            self.checkpoints.save(Path(args.output_dir) / f"checkpoint-{step}", step)
            self.log.say(f"checkpoint saved: step {step}")
        except (TrainerError, OSError) as error:
            # Hours of training are worth more than the checkpoint.
            self.log.say(f"The checkpoint of step {step} could not be saved, training goes on: {error}")


def train(
    settings: Settings,
    model_folder: Path,
    prepared: Prepared,
    checkpoints: Checkpoints | None,
    workspace: Path,
    log: Log,
) -> tuple[Outcome, Any]:
    """Return the outcome and the trainer, which can save what was trained."""
    check_sharding(settings)
    set_seed(settings.seed)
    model, tokenizer = load_model(settings, model_folder, prepared.labels)
    progress, pace = Progress(log, settings.divergence_ratio), Pace()
    with making_trainer(settings):
        trainer = make_trainer(settings, model, tokenizer, prepared, [progress, pace], workspace)
    trainer.remove_callback(PrinterCallback)
    _explain_refusals(trainer)
    log.say(_what_is_trained(trainer, settings))
    outcome = Outcome(prompt=settings.sample_prompt, before=_sample(settings, trainer, tokenizer))
    if settings.evaluate_base_model:
        outcome.metrics |= evaluate(trainer, "base_eval")
        if progress.divergence:
            raise TrainerError(
                "The loss of the model before training is not a finite number. "
                "Fix: check its weights, or use --dtype float32."
            )
    _run(trainer, checkpoints, log)
    outcome.steps, outcome.tokens = trainer.state.global_step, int(trainer.state.num_input_tokens_seen)
    final = _last_evaluation(trainer) or evaluate(trainer, "eval")
    if progress.divergence:
        _report_divergence(settings, outcome, progress.divergence, log)
        return outcome, trainer
    if logged := _logged(trainer, "loss"):
        outcome.metrics["train_loss"] = float(logged[-1]["loss"])
    measured = pace.measured()
    outcome.metrics |= final | measured
    for name, value in measured.items():
        log.metric(name, value)
    outcome.after = _sample(settings, trainer, tokenizer)
    return outcome, trainer


def _explain_refusals(trainer: Any) -> None:
    """Optimizer and scheduler are made when training begins, which itself is no judge of settings."""
    for method, names in (
        ("create_optimizer", ("optim", "optim_args")),
        ("create_scheduler", ("lr_scheduler_type", "lr_scheduler_kwargs")),
    ):
        given = {name: getattr(trainer.args, name) for name in names}
        what = " with ".join(f"`--{name}`={getattr(value, 'value', value)!r}" for name, value in given.items() if value)
        setattr(trainer, method, as_bad_input(what, "correct it, or leave it out")(getattr(trainer, method)))


def evaluate(trainer: Any, prefix: str) -> dict[str, float]:
    metrics = evaluated(trainer.evaluate(metric_key_prefix=prefix), prefix)
    if f"{prefix}_loss" not in metrics:
        raise TrainerError(f"The evaluation gave no {prefix}_loss, but {', '.join(metrics) or 'nothing'}.")
    return metrics


def _what_is_trained(trainer: Any, settings: Settings) -> str:
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in trainer.model.parameters()]
    total, trainable = (sum(size for size, _ in parameters), sum(size for size, trained in parameters if trained))
    if not settings.use_peft:
        return f"model: {trainable:,} trainable of {total:,} parameters"
    return f"adapter: {trainable:,} trainable of {total:,} parameters, rank {settings.lora_r}"


def _run(trainer: Any, checkpoints: Checkpoints | None, log: Log) -> None:
    if checkpoints is None:
        trainer.train()
        return
    saving = _Checkpointing(checkpoints, log)
    saving.trainer = trainer
    trainer.add_callback(saving)
    resumed = _find_checkpoint(trainer, checkpoints, log)
    with saving.heeding_signals():
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    if saving.told_to_stop:
        log.say(f"stopped by SIGTERM after step {trainer.state.global_step}")
        raise SystemExit(128 + signal.SIGTERM)


def _find_checkpoint(trainer: Any, checkpoints: Checkpoints, log: Log) -> Path | None:
    step, refusal = checkpoints.newest(below=trainer.args.max_steps if trainer.args.max_steps > 0 else sys.maxsize)
    if refusal:
        log.say(f"starting anew: {refusal}")
    seen = _from_all(trainer, step)
    if len(set(seen)) > 1:
        # One that went on alone would wait for the others for ever.
        log.say(f"starting anew: the nodes do not see the same checkpoints in {checkpoints.place}")
        return None
    if step == 0:
        return None
    with trainer.accelerator.local_main_process_first():
        folder = checkpoints.fetch(step)
    log.say(f"resumed from step {step}")
    return folder


def _from_all(trainer: Any, number: int) -> list[int]:
    """Return what each process of the run says."""
    if trainer.args.world_size == 1:
        return [number]
    told = trainer.accelerator.gather(torch.tensor([number], device=trainer.args.device))
    return [int(value) for value in told.tolist()]


def _logged(trainer: Any, key: str) -> list[dict[str, Any]]:
    return [entry for entry in trainer.state.log_history if key in entry]


def _last_evaluation(trainer: Any) -> dict[str, float] | None:
    """Return the metrics when --eval_steps has already evaluated the finished model."""
    evaluations = _logged(trainer, "eval_loss")
    if evaluations and evaluations[-1]["step"] == trainer.state.global_step:
        return evaluated(evaluations[-1], "eval")
    return None


def _sample(settings: Settings, trainer: Any, tokenizer: Any) -> str | None:
    if settings.sample_prompt is None or not trainer.is_world_process_zero():
        return None
    # Weights that are trained are float32 whatever --dtype is.
    with trainer.accelerator.autocast():
        return complete(trainer.model, tokenizer, settings.sample_prompt, settings.max_new_tokens)


def _report_divergence(settings: Settings, outcome: Outcome, divergence: str, log: Log) -> None:
    told = f"{divergence} after {outcome.steps} steps at --learning_rate {settings.learning_rate}"
    if settings.on_divergence == "fail":
        raise DivergedError(
            f"{told}. Fix: lower the learning rate, or pass --on_divergence report to have a search count such a "
            "trial as a very bad one."
        )
    outcome.diverged = True
    # Worse than any other, yet numbers, as collector and search need one.
    outcome.metrics |= worst(settings.task)
    log.say(f"{told}; it is reported as a very bad run and nothing is saved.")
    for name, value in worst(settings.task).items():
        log.metric(name, value)
