"""``make bench-retuning``: what a warm start saves when a tenth of the data has changed since the last tuning.

For each seed: a search on last week's data makes a champion, as `KatibTuneLLMOperator` would. The champion is evaluated
on this week's rows. Then two searches go on until a trial is as good: one over the whole space, one over the space that
`warm_start` leaves. Trials are the real trainer's, of a small model that was really pretrained.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from airflow_llmtune.controlplane.algorithms.catalog import load
from airflow_llmtune.controlplane.algorithms.request import PastTrial, SearchRequest
from airflow_llmtune.controlplane.algorithms.search_space import parse
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.defaults import WARM_START_SCALE
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.warm_start import narrow
from benchmarks.small_model import dialogues, pretrain, write_datasets
from demo.prepare_dataset import Pair

ALGORITHM = "tpe"
CHAMPION_TRIALS = 12
MOST_TRIALS = 24
GOAL = 0.5
SPACE = {
    "learning_rate": search.log_uniform(1e-5, 1e-1),
    "lora_r": search.categorical([4, 8, 16, 32]),
    "lora_alpha": search.integer(8, 64),
}
FIXED = {"max_steps": 40, "dtype": "float32", "on_divergence": "report"}


@dataclass(frozen=True)
class Retuned:
    """One seed's searches; a search that did not get there counts with all its trials."""

    seed: int
    champion: float
    """The champion's loss on the rows that it was chosen by."""
    baseline: float
    """Its loss on this week's rows: what is to be reached."""
    cold: int
    warm: int
    cold_best: float
    warm_best: float


@dataclass(frozen=True)
class Trial:
    number: int
    parameters: Mapping[str, Any]
    loss: float
    adapter: Path


@dataclass(frozen=True)
class Tuning:
    """Searches over one data set, with each trial's adapter in a folder of its own."""

    model: Path
    dataset: Path
    home: Path

    def trials(self, space: SearchSpace, seed: int) -> Iterator[Trial]:
        algorithm, past = load(ALGORITHM), list[PastTrial]()
        parameters = parse([parameter.to_manifest() for parameter in space.parameters])
        while True:
            request = SearchRequest(parameters, minimize=True, settings={"random_state": str(seed)}, past=past)
            (suggested,) = algorithm.suggest(request, 1).suggested
            adapter = self.home / str(len(past) + 1)
            loss = train(self.model, self.dataset, suggested.assignments, adapter)
            past.append(PastTrial(suggested.assignments, "complete", loss))
            yield Trial(len(past), space.decode(suggested.assignments), loss, adapter)


def train(model: Path, dataset: Path, parameters: Mapping[str, str], adapter: Path) -> float:
    return _run_trainer(model, dataset, {**FIXED, **parameters, "output_dir": adapter})


def evaluate(model: Path, dataset: Path, adapter: Path) -> float:
    return _run_trainer(model, dataset, {"dtype": FIXED["dtype"], "adapter": adapter}, "evaluate")


def _run_trainer(model: Path, dataset: Path, settings: Mapping[str, Any], *mode: str) -> float:
    """Run the trainer in this process, as its command line would: an import of torch for each trial takes longer."""
    from llmtune_trainer.__main__ import main

    told = dataset.parent / "termination.json"
    flags = {"model_name_or_path": model, "dataset_name": dataset, **settings}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main([*mode, *(f"--{k}={v}" for k, v in flags.items())], {"LLMTUNE_TERMINATION_LOG": str(told)})
    if code != 0:
        raise RuntimeError(f"the trainer failed with exit code {code}: {errors.getvalue()[-2000:]}")
    return float(json.loads(told.read_text(encoding="utf-8"))["metrics"]["eval_loss"])


def retune(seed: int, model: Path, pairs: Sequence[Pair], most_trials: int) -> Retuned:
    _use_one_core()
    space = SearchSpace.from_json(SPACE, Problems())
    with tempfile.TemporaryDirectory(prefix="llmtune-retuning-") as folder:
        home = Path(folder)
        before, after = write_datasets(pairs, home, seed)
        first = Tuning(model, before, home / "champion").trials(space, seed)
        champion = min((next(first) for _ in range(CHAMPION_TRIALS)), key=lambda trial: trial.loss)
        baseline = evaluate(model, after, champion.adapter)
        # Seeds of their own: a search that repeats the draws of the champion's would find it again at once.
        cold = list(_until(baseline, Tuning(model, after, home / "cold").trials(space, seed + 1000), most_trials))
        narrowed = narrow(space, champion.parameters, WARM_START_SCALE).space
        warm = list(_until(baseline, Tuning(model, after, home / "warm").trials(narrowed, seed + 2000), most_trials))
    best = [min(trial.loss for trial in trials) for trials in (cold, warm)]
    return Retuned(seed, champion.loss, baseline, len(cold), len(warm), *best)


def _until(baseline: float, trials: Iterator[Trial], most: int) -> Iterator[Trial]:
    for trial in trials:
        yield trial
        if trial.loss <= baseline or trial.number == most:
            return


def _use_one_core() -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update({"TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-retuning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--most-trials", type=int, default=MOST_TRIALS, help="of one search (default: %(default)s)")
    options, begin = parser.parse_args(), time.monotonic()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="llmtune-retuning-") as folder, console.status("pretraining") as status:
        model = Path(folder, "model")
        pretraining, tuning = dialogues()
        spawn = multiprocessing.get_context("spawn")
        # A process of its own also for this: torch's threads do not outlive it.
        with ProcessPoolExecutor(1, spawn) as pool:
            loss = pool.submit(pretrain, pretraining, model).result()
        console.print(f"pretrained to {loss:.2f} nats a token in {time.monotonic() - begin:.0f} s")
        status.update(f"{options.seeds} seeds, each {CHAMPION_TRIALS} trials for its champion, then cold and warm")
        with ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
            runs = [pool.submit(retune, seed, model, tuning, options.most_trials) for seed in range(options.seeds)]
            done = [run.result() for run in runs]
    figures = summary(done, options.most_trials) | {"seconds": round(time.monotonic() - begin)}
    show(console, done, figures)
    print("figures:", json.dumps(figures))


def summary(done: Sequence[Retuned], most: int) -> dict[str, Any]:
    cold, warm = [one.cold for one in done], [one.warm for one in done]
    return {
        "seeds": len(done),
        "cold_trials_mean": statistics.mean(cold),
        "warm_trials_mean": statistics.mean(warm),
        "cold_trials_median": statistics.median(cold),
        "warm_trials_median": statistics.median(warm),
        "warm_to_cold": round(sum(warm) / sum(cold), 3),
        "cold_not_reached": sum(one.cold == most and one.cold_best > one.baseline for one in done),
        "warm_not_reached": sum(one.warm == most and one.warm_best > one.baseline for one in done),
        "goal": GOAL,
    }


def show(console: Console, done: Sequence[Retuned], figures: Mapping[str, Any]) -> None:
    table = Table(title="Trials until one is as good as the champion on this week's data")
    for column in ("seed", "champion's loss", "on new rows", "cold", "warm", "cold best", "warm best"):
        table.add_column(column, justify="right")
    for one in done:
        losses = [f"{value:.4f}" for value in (one.champion, one.baseline)]
        best = [f"{value:.4f}" for value in (one.cold_best, one.warm_best)]
        table.add_row(str(one.seed), *losses, str(one.cold), str(one.warm), *best)
    console.print(table)
    met = "met" if figures["warm_to_cold"] <= GOAL else "missed"
    console.print(f"warm needs {figures['warm_to_cold']:.2f} of cold's trials: the goal of {GOAL} is {met}")


if __name__ == "__main__":
    main()
