"""``python -m llmtune_trainer --model_name_or_path MODEL --dataset_name DATA ...``, or ``torchrun -m`` with the same.

With ``evaluate`` as the first word an adapter, or the model itself, is evaluated as after a training.

Exit code 0: trained, evaluated and, with --output_dir, saved. 2: settings, model or data are wrong. 1: all else.
128 and the signal's number: ended by it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llmtune_trainer import __version__
from llmtune_trainer.addresses import public_name
from llmtune_trainer.cache import open_cache
from llmtune_trainer.checkpoints import Checkpoints, identity
from llmtune_trainer.errors import BadInputError, TrainerError
from llmtune_trainer.katib_push import Push
from llmtune_trainer.manifest import describe, evaluation_of
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
from llmtune_trainer.sources import Fetched, fetch_adapter, fetch_dataset, fetch_model

if TYPE_CHECKING:
    from llmtune_trainer.data.prepare import Prepared

# Set by whoever made the command, to the version that it was made for.
VERSION_VARIABLE = "LLMTUNE_TRAINER_VERSION"
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
    attempt: tuple[str, ...] = ()  # the same for all processes, and another one after each restart

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> World:
        return cls(
            rank=int(environ.get("RANK", 0)),
            local_rank=int(environ.get("LOCAL_RANK", 0)),
            size=int(environ.get("WORLD_SIZE", 1)),
            attempt=tuple(environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")),
        )


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(usage())
        return 0
    world = World.of(environ)
    mode: Mode = "evaluate" if arguments[:1] == ["evaluate"] else "train"
    try:
        _check_version(environ)
        settings = parse_settings(arguments[mode == "evaluate" :], environ, mode)
        with _log(settings, world, environ) as log:
            finished = run(settings, world, mode, log)
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


def _check_version(environ: Mapping[str, str]) -> None:
    wanted = environ.get(VERSION_VARIABLE)
    if wanted and wanted.split(".")[:2] != __version__.split(".")[:2]:
        raise BadInputError(
            f"`{VERSION_VARIABLE}`={wanted!r} is the version that this command was made for, and this is "
            f"llmtune-trainer {__version__}: flags and results may differ. Fix: use the image of version {wanted}."
        )


@contextmanager
def _log(settings: Settings, world: World, environ: Mapping[str, str]) -> Iterator[Log]:
    with ExitStack() as stack:
        pushes = settings.metrics_push and world.rank == 0
        push = stack.enter_context(Push.open(environ)) if pushes else None
        yield Log(speaks=world.rank == 0, form=settings.metrics_format, push=push)


@dataclass(frozen=True)
class Inputs:
    """What is read, and which version of it that was."""

    model: Fetched
    adapter: Fetched | None
    data: Fetched
    prepared: Prepared


def run(settings: Settings, world: World, mode: Mode, log: Log) -> dict[str, Any]:
    """Return the summary."""
    # Half a second for pyarrow, which a wrong setting has not cost.
    from llmtune_trainer.data.prepare import prepare

    for flag, address in (("--output_dir", settings.output_dir), ("--checkpoint_dir", settings.checkpoint_place)):
        if address is not None:
            check_destination(flag, address)
    log.say(f"llmtune-trainer {__version__}: {settings.model_name_or_path} on {settings.dataset_name}")
    with _workspace(world) as workspace, closing(open_cache(settings, workspace, log.say)) as cache:
        model = fetch_model(settings, cache)
        adapter = None if settings.adapter is None else fetch_adapter(settings, cache)
        data = fetch_dataset(settings, cache)
        prepared = prepare(settings, data, model, cache, log.say, only_eval=mode == "evaluate")
        inputs = Inputs(model, adapter, data, prepared)
        if mode == "evaluate":
            return _evaluate(settings, inputs, workspace, log)
        return _train_and_store(settings, inputs, world, workspace, log)


def _evaluate(settings: Settings, inputs: Inputs, workspace: Path, log: Log) -> dict[str, Any]:
    rows = inputs.prepared.report["rows"]
    log.say(f"rows: {rows['eval']} to evaluate, format {inputs.prepared.report['format']}")
    with warnings.catch_warnings():
        # The libraries deprecate each other's options; none of it is about this run.
        warnings.simplefilter("ignore")
        # Five seconds and half a gigabyte, which a wrong setting or path has not cost.
        from llmtune_trainer.evaluation import evaluate_adapter

        adapter = None if inputs.adapter is None else inputs.adapter.path
        metrics = evaluate_adapter(settings, inputs.model.path, adapter, inputs.prepared, workspace, log)
    manifest = _manifest(settings, inputs, steps=0, trained_tokens=0, unservable=[])
    artifact_uri = None if settings.adapter is None else public_name(settings.adapter)
    return summary(metrics, artifact_uri, None, manifest, diverged=False)


def _train_and_store(settings: Settings, inputs: Inputs, world: World, workspace: Path, log: Log) -> dict[str, Any]:
    started = time.monotonic()
    rows = inputs.prepared.report["rows"]
    format_ = inputs.prepared.report["format"]
    log.say(f"rows: {rows['train']} to train on, {rows['eval']} to evaluate, format {format_}")
    whose = identity(settings, inputs.model.version, inputs.data.version, world.size)
    checkpoints = Checkpoints.of(settings, whose, workspace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from llmtune_trainer import saving  # as above
        from llmtune_trainer.training import train

        outcome, trainer = train(settings, inputs.model.path, inputs.prepared, checkpoints, workspace, log)
        saves = settings.output_dir is not None and not outcome.diverged
        gathered = saving.gather(trainer, workspace) if saves else None
        trained = {
            "steps": outcome.steps,
            "trained_tokens": outcome.tokens,
            "unservable": saving.unservable(trainer, settings),
        }
        artifact_uri = address_of(settings.output_dir) if settings.output_dir and saves else None
        manifest = _manifest(settings, inputs, **trained)
        short = summary(outcome.metrics, artifact_uri, outcome.samples(), manifest, diverged=outcome.diverged)
        full = short | {"parameters": asdict(settings), "seconds": round(time.monotonic() - started, 3)}

        def save(folder: Path) -> None:
            saving.save(trainer, settings, gathered, folder)
            if settings.merge_adapter:
                saving.merge(settings, inputs.model.path, inputs.prepared.labels, folder)

        if settings.output_dir and saves and log.speaks:
            store("--output_dir", settings.output_dir, save, full, workspace)
            log.say(f"{'adapter' if settings.use_peft else 'model'} saved: {artifact_uri}")
    if checkpoints is not None and log.speaks and not settings.keep_checkpoints:
        _tidy_up(checkpoints, log)
    log.say(f"done: {outcome.steps} steps in {time.monotonic() - started:.1f} s")
    return short


def _tidy_up(checkpoints: Checkpoints, log: Log) -> None:
    try:
        checkpoints.remove()
    except (TrainerError, OSError) as error:
        log.say(f"The checkpoints could not be removed, the result is complete: {error}")


def _manifest(settings: Settings, inputs: Inputs, **trained: Any) -> dict[str, Any]:
    prepared = inputs.prepared
    return describe(
        settings,
        base_model_revision=inputs.model.revision,
        dataset_version=inputs.data.version,
        evaluation=evaluation_of(settings, prepared.fingerprint, len(prepared.eval)),
        data=prepared.report,
        classes=prepared.labels,
        **trained,
    )


@contextmanager
def _workspace(world: World) -> Iterator[Path]:
    """Give the processes of one node one temporary folder; all have the same parent, torchrun's agent."""
    if world.size == 1:
        with tempfile.TemporaryDirectory(prefix="llmtune-") as folder:
            yield Path(folder)
        return
    # Not by the parent's number alone: a killed run's folder may be left, and numbers come again.
    launch = hashlib.sha256(repr((_started(os.getppid()), *world.attempt)).encode()).hexdigest()[:16]
    shared = Path(tempfile.gettempdir()) / f"llmtune-{os.getppid()}-{launch}"
    shared.mkdir(mode=0o700, exist_ok=True)
    try:
        yield shared
    finally:
        if world.local_rank == 0:
            shutil.rmtree(shared, ignore_errors=True)


def _started(process: int) -> str:
    """Return when a process was started, where the system has /proc."""
    stat = Path(f"/proc/{process}/stat")
    # The 22nd field; the second, the name in brackets, may hold anything.
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19] if stat.is_file() else ""


def _keep_freed_memory() -> None:
    """Have glibc reuse large blocks: giving each back and clearing new ones is a sixth of a step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>
        libc = ctypes.CDLL(None)
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _use_one_gpu(environ: MutableMapping[str, str]) -> None:
    """A process without others would spread its batches over all GPUs, and a flat batch cannot be cut in two."""
    if World.of(environ).size == 1:
        environ["CUDA_VISIBLE_DEVICES"] = environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def _stop(number: int, _: object) -> NoReturn:
    # As an exception, so that the temporary folders go; non-zero, as nothing was finished.
    raise SystemExit(128 + number)


def entry() -> NoReturn:
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    # It has no variable for that. PEFT imports it in every run, and it warns of kernels that a CPU does without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _stop)
    _keep_freed_memory()
    _use_one_gpu(os.environ)
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
