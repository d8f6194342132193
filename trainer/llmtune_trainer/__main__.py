"""``python -m llmtune_trainer --model_name_or_path MODEL --dataset_name DATA ...``, or ``torchrun -m`` with the same.

With ``evaluate`` as the first word an adapter, or the model itself, is evaluated as after a training.

Exit code 0: trained, evaluated and, with --output_dir, saved. 2: settings, model or data are wrong. 1: all else.
128 and the signal's number: ended by it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from llmtune_trainer import __version__
from llmtune_trainer.checkpoints import Checkpoints, identity
from llmtune_trainer.dataset import Examples, load_examples
from llmtune_trainer.errors import TrainerError
from llmtune_trainer.manifest import describe
from llmtune_trainer.metrics import Log
from llmtune_trainer.result import (
    address_of,
    check_destination,
    failure,
    store,
    summary,
    write_termination_log,
)
from llmtune_trainer.settings import Mode, Settings, parse_settings, usage
from llmtune_trainer.sources import (
    dataset_version,
    fetch_adapter,
    fetch_dataset,
    fetch_model,
    hub_commit,
    model_version,
    public_name,
)

# The libraries' own progress bars and remarks would bury the metrics.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


@dataclass(frozen=True)
class World:
    """The place of this process in a distributed run, as torchrun tells it."""

    rank: int
    local_rank: int
    size: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> World:
        return cls(
            *(int(environ.get(name, default)) for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1)))
        )


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(usage())
        return 0
    world = World.of(environ)
    mode: Mode = "evaluate" if arguments[:1] == ["evaluate"] else "train"
    try:
        finished = run(parse_settings(arguments[mode == "evaluate" :], environ, mode), world, mode)
    except TrainerError as error:
        if world.local_rank == 0:
            print(f"error: {error}", file=sys.stderr)
            write_termination_log(failure(str(error)), environ, keep_earlier=world.size > 1)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last resort of a process: say what happened, exit non-zero
        traceback.print_exc()
        # Of several processes the first to fail knows the cause; the others only lost their peer.
        cause = f"{type(error).__name__}: {error}"
        write_termination_log(failure(cause), environ, keep_earlier=world.size > 1)
        return 1
    if world.rank == 0:
        write_termination_log(finished, environ)
    return 0


@dataclass(frozen=True)
class Inputs:
    """What is read, and which version of it that was."""

    model: Path
    adapter: Path | None
    examples: Examples
    dataset_version: str


def run(settings: Settings, world: World, mode: Mode) -> dict[str, Any]:
    """Return the summary."""
    log = Log(speaks=world.rank == 0)
    for flag, address in (("--output_dir", settings.output_dir), ("--checkpoint_dir", settings.checkpoint_place)):
        if address is not None:
            check_destination(flag, address)
    with _workspace(world) as workspace:
        with _first_of_node_first(world):
            inputs = _read(settings, workspace)
        log.say(f"llmtune-trainer {__version__}: {settings.model_name_or_path} on {settings.dataset_name}")
        if mode == "evaluate":
            return _evaluate(settings, inputs, workspace, log)
        return _train_and_store(settings, inputs, world, workspace, log)


def _read(settings: Settings, workspace: Path) -> Inputs:
    model = fetch_model(settings.model_name_or_path, settings.model_revision, workspace)
    adapter = None if settings.adapter is None else fetch_adapter(settings.adapter, workspace)
    location = fetch_dataset(settings.dataset_name, workspace)
    return Inputs(model, adapter, load_examples(location, settings), dataset_version(settings.dataset_name, location))


def _evaluate(settings: Settings, inputs: Inputs, workspace: Path, log: Log) -> dict[str, Any]:
    examples = inputs.examples
    log.say(f"rows: {len(examples.eval)} to evaluate, format {examples.format}")
    with warnings.catch_warnings():
        # The libraries deprecate each other's options; none of it is about this run.
        warnings.simplefilter("ignore")
        # Five seconds and half a gigabyte, which a wrong setting or path has not cost.
        from llmtune_trainer.evaluation import evaluate_adapter

        loss, evaluation = evaluate_adapter(settings, inputs.model, inputs.adapter, examples, workspace, log)
    manifest = _manifest(settings, inputs, evaluation, trained=0, steps=0)
    artifact_uri = None if settings.adapter is None else public_name(settings.adapter)
    return summary({"eval_loss": loss}, artifact_uri, None, manifest, diverged=False)


def _train_and_store(settings: Settings, inputs: Inputs, world: World, workspace: Path, log: Log) -> dict[str, Any]:
    started = time.monotonic()
    examples = inputs.examples
    log.say(f"rows: {len(examples.train)} to train on, {len(examples.eval)} to evaluate, format {examples.format}")
    checkpoints = _checkpoints(settings, inputs, world, workspace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from llmtune_trainer.training import save_adapter, train  # as above

        outcome, trainer = train(settings, inputs.model, examples, checkpoints, workspace, log)
    saves = settings.output_dir is not None and not outcome.diverged
    artifact_uri = address_of(settings.output_dir) if settings.output_dir and saves else None
    samples = None
    if settings.sample_prompt and outcome.sample_before is not None:
        samples = {
            "prompt": settings.sample_prompt,
            "before": outcome.sample_before,
            "after": outcome.sample_after or "",
        }
    manifest = _manifest(settings, inputs, outcome.evaluation, trained=len(examples.train), steps=outcome.steps)
    short = summary(outcome.metrics, artifact_uri, samples, manifest, diverged=outcome.diverged)
    full = short | {"parameters": asdict(settings), "seconds": round(time.monotonic() - started, 3)}
    if settings.output_dir and saves and log.speaks:
        # LoRA under data-parallel training: the first process holds the whole adapter.
        store(
            "--output_dir", settings.output_dir, lambda folder: save_adapter(trainer, settings, folder), full, workspace
        )
        log.say(f"adapter saved: {artifact_uri}")
    if checkpoints is not None and log.speaks:
        _tidy_up(checkpoints, log)
    log.say(f"done: {outcome.steps} steps in {time.monotonic() - started:.1f} s")
    return short


def _tidy_up(checkpoints: Checkpoints, log: Log) -> None:
    try:
        checkpoints.remove()
    except (TrainerError, OSError) as error:
        log.say(f"The checkpoints could not be removed, the result is complete: {error}")


def _checkpoints(settings: Settings, inputs: Inputs, world: World, workspace: Path) -> Checkpoints | None:
    if settings.checkpoint_place is None:
        return None
    whose = identity(settings, model_version(inputs.model), inputs.dataset_version, world.size)
    return Checkpoints(settings.checkpoint_place, whose, settings.save_total_limit, workspace)


def _manifest(
    settings: Settings, inputs: Inputs, evaluation: Mapping[str, Any], *, trained: int, steps: int
) -> dict[str, Any]:
    return describe(
        settings,
        base_model_revision=hub_commit(inputs.model),
        dataset_version=inputs.dataset_version,
        rows={"train": trained, "eval": len(inputs.examples.eval)},
        steps=steps,
        evaluation=evaluation,
    )


@contextmanager
def _workspace(world: World) -> Iterator[Path]:
    """Give the processes of one node one temporary folder; all have the same parent, torchrun's agent."""
    if world.size == 1:
        with tempfile.TemporaryDirectory(prefix="llmtune-") as folder:
            yield Path(folder)
        return
    shared = Path(tempfile.gettempdir()) / f"llmtune-{os.getppid()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    try:
        yield shared
    finally:
        if world.local_rank == 0:
            shutil.rmtree(shared, ignore_errors=True)


@contextmanager
def _first_of_node_first(world: World) -> Iterator[None]:
    """Let one process of each node download; the others find the files there."""
    if world.size == 1:
        yield
        return
    import torch  # only now: a single process checks its data before it pays for this
    from accelerate import PartialState

    with PartialState(cpu=not torch.cuda.is_available()).local_main_process_first():
        yield


def _keep_freed_memory() -> None:
    """Have glibc reuse large blocks: giving each back and clearing new ones is a sixth of a step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>
        libc = ctypes.CDLL(None)
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _stop(number: int, _: object) -> NoReturn:
    # As an exception, so that the temporary folders go; non-zero, as nothing was finished.
    raise SystemExit(128 + number)


def entry() -> NoReturn:
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    signal.signal(signal.SIGTERM, _stop)
    _keep_freed_memory()
    try:
        code = main(sys.argv[1:], os.environ)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking torch apart takes another second, and nothing is left to do.
    os._exit(code)


if __name__ == "__main__":
    entry()
