"""``make bench-trainer``: our trainer and other ways of the same fine-tune, side by side.

Each is a process of its own, with the same model, rows, adapter, schedule and precision, alone on the machine. Useful
tokens are those of the rows, without padding. The loss is that of our trainer's `evaluate` over rows that none was
trained on, for the adapter that each leaves: speed that was bought with quality would show there. At the end, what
trials pay that start at once and share a cache, until they know their rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.trainer_peers import PEERS, Task
from demo.prepare_dataset import find_corpus, read_dialogues
from demo.prepare_model import prepare as prepare_model

Pair = tuple[str, str]
OURS, CACHED = "ours", "ours, prepared before"
# Of ours to each of them, in useful tokens a second; and of the time to the first step's end.
GOALS = {"upstream": 2.0, "dynamic": 1.3, "trl_packed": 1.0, "trl_packed_kept": 1.0}
START_GOAL = 1.2
# Trials that start at once, and how many rows they prepare.
TRIALS, PREPARED_ROWS = 4, 20_000
STEP = re.compile(r"step (\d+\.\d+)")
TRAINED = re.compile(r"(\S+) train_loss=")
EVALUATED = re.compile(r"\S+ eval_loss=(\S+)")


@dataclass(frozen=True)
class Measured:
    started: float
    steps: tuple[float, ...]
    """The end of each, in seconds since the epoch, as is the start."""

    @property
    def first_step(self) -> float:
        return self.steps[0] - self.started

    def tokens_per_second(self, tokens: int) -> float:
        """The first step also pays for what is only once: kernels, memory, threads."""
        share = (len(self.steps) - 1) / len(self.steps)
        return tokens * share / (self.steps[-1] - self.steps[0])


def read_pairs() -> list[Pair]:
    """Real dialogues of all lengths, a few words to half a page; always the same."""
    dialogues = (dialogue[:2] for dialogue in read_dialogues(find_corpus()) if len(dialogue) >= 2)
    pairs = {str(prompt): str(answer) for prompt, answer in dialogues if str(prompt).strip() and str(answer).strip()}
    return sorted(pairs.items())


def write_rows(folder: Path, train: Sequence[Pair], held_out: Sequence[Pair]) -> Path:
    folder.mkdir()
    for name, part in (("train", train), ("eval", held_out)):
        lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run_peer(name: str, task: Task, spec: Path) -> Measured:
    started = time.time()
    output = _run([sys.executable, "-m", "benchmarks.trainer_peers", name, str(task.write(spec))])
    return Measured(started, tuple(map(float, STEP.findall(output))))


def run_ours(task: Task, cache: Path) -> Measured:
    started = time.time()
    settings = {
        "model_name_or_path": task.model,
        "dataset_name": task.dataset,
        "output_dir": task.output,
        "cache_dir": cache,
        "max_length": task.max_length,
        "per_device_train_batch_size": task.batch,
        "learning_rate": task.learning_rate,
        "lora_r": task.lora_r,
        "lora_alpha": task.lora_alpha,
        "logging_steps": 1,
    }
    output = _run([sys.executable, "-m", "llmtune_trainer", *(f"--{name}={value}" for name, value in settings.items())])
    ends = [datetime.fromisoformat(stamp).timestamp() for stamp in TRAINED.findall(output)]
    return Measured(started, tuple(ends))


def prepare_cpu_seconds(task: Task, caches: Sequence[Path]) -> float:
    """Return what trials that start at once pay, one for each cache that is named, until all know their rows."""
    flags = {"model_name_or_path": task.model, "dataset_name": task.dataset, "max_length": task.max_length}
    trainer = [sys.executable, "-m", "llmtune_trainer", *(f"--{name}={value}" for name, value in flags.items())]
    with ThreadPoolExecutor(len(caches)) as trials:
        return sum(trials.map(lambda cache: _cpu_seconds_to_rows([*trainer, f"--cache_dir={cache}"]), caches))


def _cpu_seconds_to_rows(command: Sequence[str]) -> float:
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("rows: ") for line in process.stdout), "the trainer says how many there are"
        process.kill()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime


def evaluate(task: Task) -> float:
    flags = {"model_name_or_path": task.model, "dataset_name": task.dataset, "max_length": task.max_length}
    given = [f"--{name}={value}" for name, value in {**flags, "adapter": task.output}.items()]
    found = EVALUATED.search(_run([sys.executable, "-m", "llmtune_trainer", "evaluate", *given]))
    assert found is not None, "the trainer prints it"
    return float(found[1])


def useful_tokens(output: Path) -> int:
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return int(result["manifest"]["data"]["tokens"]["train"])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".demo/SmolLM2-135M-Instruct"), help="made when missing")
    parser.add_argument("--rows", type=int, default=96, help="to train on, one epoch (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=512, help="in tokens (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="rows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts (default: %(default)s)")
    options = parser.parse_args()
    console, begin = Console(width=120), time.monotonic()
    prepare_model(options.model)
    with tempfile.TemporaryDirectory(prefix="llmtune-bench-") as folder, console.status("") as status:
        home = Path(folder)
        pairs, draw = read_pairs(), random.Random(0)  # noqa: S311 (guards nothing)
        drawn = draw.sample(pairs, options.rows + 64)
        dataset = write_rows(home / "data", drawn[: options.rows], drawn[options.rows :])
        many = write_rows(home / "many", draw.choices(pairs, k=PREPARED_ROWS), draw.choices(pairs, k=64))

        def task(name: str, dataset: Path = dataset) -> Task:
            output = str(home / name.replace(" ", "_"))
            model, length = str(options.model.resolve()), options.max_length
            return Task(model, str(dataset), output, length, options.batch, 5e-4, 16, 32)

        runs: dict[str, list[Measured]] = {}
        for number in range(options.rounds):
            cache = home / f"cache-{number}"
            for name in (OURS, CACHED, *PEERS):
                status.update(f"round {number + 1}: {name}")
                ours = name in (OURS, CACHED)
                one = run_ours(task(name), cache) if ours else run_peer(name, task(name), home / "task.json")
                runs.setdefault(name, []).append(one)
        tokens = useful_tokens(Path(task(OURS).output))
        status.update("evaluating what each has left")
        losses = {name: evaluate(task(name)) for name in (OURS, *PEERS)}
        status.update(f"{TRIALS} trials prepare {PREPARED_ROWS:,} rows")
        alone = prepare_cpu_seconds(task("alone", many), [home / "alone"])
        shared = prepare_cpu_seconds(task("shared", many), [home / "shared"] * TRIALS)
        again = prepare_cpu_seconds(task("shared", many), [home / "shared"])
    prepared = {"one": round(alone, 1), "all": round(shared, 1), "one more": round(again, 1)}
    figures = summary(runs, tokens, losses) | {"prepare_cpu_s": prepared, "seconds": round(time.monotonic() - begin)}
    show(console, figures)
    print("figures:", json.dumps(figures))


def summary(runs: dict[str, list[Measured]], tokens: int, losses: dict[str, float]) -> dict[str, Any]:
    speed = {name: max(one.tokens_per_second(tokens) for one in many) for name, many in runs.items()}
    start = {name: min(one.first_step for one in many) for name, many in runs.items()}
    best = max(speed[OURS], speed[CACHED])
    return {
        "useful_tokens": tokens,
        "tokens_per_second": {name: round(value, 1) for name, value in speed.items()},
        "first_step_s": {name: round(value, 2) for name, value in start.items()},
        "eval_loss": {name: round(value, 4) for name, value in losses.items()},
        "speed_ratio": {name: round(best / speed[name], 2) for name in PEERS},
        "start_ratio": round(start[CACHED] / start["dynamic"], 2),
    }


def show(console: Console, figures: dict[str, Any]) -> None:
    table = Table(title="One epoch of the same rows")
    for column in ("", "useful tokens/s", "ours to it", "goal", "first step after", "eval loss"):
        table.add_column(column, justify="right" if column else "left")
    for name, speed in figures["tokens_per_second"].items():
        ratio, goal = figures["speed_ratio"].get(name), GOALS.get(name)
        table.add_row(
            name,
            f"{speed:.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            "" if goal is None else f"{goal:.1f} {'met' if ratio >= goal else 'missed'}",
            f"{figures['first_step_s'][name]:.1f} s",
            f"{figures['eval_loss'][name]:.4f}" if name in figures["eval_loss"] else "",
        )
    console.print(table)
    met = "met" if figures["start_ratio"] <= START_GOAL else "missed"
    console.print(f"first step after {figures['start_ratio']:.2f} of a bare script's time: {START_GOAL} is {met}")
    cpu = figures["prepare_cpu_s"]
    console.print(
        f"CPU seconds until {PREPARED_ROWS:,} rows are prepared: one trial {cpu['one']}, {TRIALS} that start at once "
        f"and share a cache {cpu['all']} in all, one more {cpu['one more']}"
    )


if __name__ == "__main__":
    main()
