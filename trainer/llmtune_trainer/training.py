"""Fine-tunes one LoRA adapter with TRL and evaluates it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback, set_seed

from llmtune_trainer.checkpoints import Checkpoints
from llmtune_trainer.dataset import Examples
from llmtune_trainer.errors import DivergedError, TrainerError
from llmtune_trainer.generate import complete
from llmtune_trainer.lora_trainer import (
    LoraTrainer,
    Progress,
    arguments,
    check_prepared,
    describe_evaluation,
    evaluate,
    load_model,
    to_dataset,
)
from llmtune_trainer.metrics import Log
from llmtune_trainer.settings import Settings
from llmtune_trainer.sources import public_name

# What a diverged run reports as its loss: worse than any other, yet a number, as collector and search need one.
DIVERGED_LOSS = 1e9
# Written by the libraries beside the adapter: a pickle and a template text, with paths of this machine in them.
NOT_PART_OF_ADAPTER = ("training_args.bin", "README.md")


@dataclass
class Outcome:
    metrics: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    evaluation: dict[str, Any] = field(default_factory=dict)
    diverged: bool = False
    sample_before: str | None = None
    sample_after: str | None = None


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
            control.should_save = False  # only the evaluation is left; and the library would train on from here
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
    examples: Examples,
    checkpoints: Checkpoints | None,
    workspace: Path,
    log: Log,
) -> tuple[Outcome, Any]:
    """Return the outcome and the trainer, which can save the adapter."""
    set_seed(settings.seed)
    model, tokenizer = load_model(settings, model_folder)
    progress = Progress(log)
    trainer = LoraTrainer(
        model=model,
        args=arguments(settings, workspace),
        train_dataset=to_dataset(examples.train, examples.format, tokenizer),
        eval_dataset=to_dataset(examples.eval, examples.format, tokenizer),
        processing_class=tokenizer,
        peft_config=_lora(settings),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    check_prepared(trainer, settings)
    trainable, total = trainer.model.get_nb_trainable_parameters()
    log.say(f"adapter: {trainable:,} trainable of {total:,} parameters, rank {settings.lora_r}")
    outcome = Outcome(evaluation=describe_evaluation(trainer))
    outcome.sample_before = _sample(settings, trainer, tokenizer)
    if settings.evaluate_base_model:
        outcome.metrics["base_eval_loss"] = evaluate(trainer, "base_eval")
        if progress.diverged:
            raise TrainerError(
                "The loss of the model before training is not a finite number. "
                "Fix: check its weights, or use --dtype float32."
            )
    _run(trainer, checkpoints, log)
    if not progress.diverged and (logged := _logged(trainer, "loss")):
        outcome.metrics["train_loss"] = float(logged[-1]["loss"])
    outcome.metrics["eval_loss"] = _last_evaluation(trainer) or evaluate(trainer, "eval")
    outcome.steps = trainer.state.global_step
    if progress.diverged:
        _report_divergence(settings, outcome, log)
    else:
        outcome.sample_after = _sample(settings, trainer, tokenizer)
    return outcome, trainer


def save_adapter(trainer: Any, settings: Settings, folder: Path) -> None:
    trainer.save_model(str(folder))
    for name in NOT_PART_OF_ADAPTER:
        (folder / name).unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    # PEFT wrote the folder that was loaded, which for S3 and the Hub is gone tomorrow.
    config["base_model_name_or_path"] = public_name(settings.model_name_or_path)
    config["revision"] = settings.model_revision
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
    step, refusal = checkpoints.newest()
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


def _lora(settings: Settings) -> LoraConfig:
    modules = settings.lora_target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )


def _logged(trainer: Any, key: str) -> list[dict[str, Any]]:
    return [entry for entry in trainer.state.log_history if key in entry]


def _last_evaluation(trainer: Any) -> float | None:
    """Return the loss when --eval_steps has already evaluated the finished model."""
    evaluations = _logged(trainer, "eval_loss")
    if evaluations and evaluations[-1]["step"] == trainer.state.global_step:
        return float(evaluations[-1]["eval_loss"])
    return None


def _sample(settings: Settings, trainer: Any, tokenizer: Any) -> str | None:
    if settings.sample_prompt is None or not trainer.is_world_process_zero():
        return None
    return complete(trainer.model, tokenizer, settings.sample_prompt, settings.max_new_tokens)


def _report_divergence(settings: Settings, outcome: Outcome, log: Log) -> None:
    advice = f"after {outcome.steps} steps at --learning_rate {settings.learning_rate}"
    if settings.on_divergence == "fail":
        raise DivergedError(
            f"The loss is no longer a finite number {advice}. Fix: lower the learning rate, or pass "
            "--on_divergence report to have a search count such a trial as a very bad one."
        )
    outcome.diverged = True
    outcome.metrics["eval_loss"] = DIVERGED_LOSS
    log.say(
        f"The loss is no longer a finite number {advice}; it is reported as {DIVERGED_LOSS:g} and nothing is saved."
    )
    log.metric("eval_loss", DIVERGED_LOSS)
