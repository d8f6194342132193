"""What the demo prints at its end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from demo.cluster import Cluster, metric, parameters, phase, seconds
from demo.progress import METRIC, Progress


def print_report(
    console: Console, cluster: Cluster, progress: Progress, tuned: dict[str, Any], trained: dict[str, Any]
) -> None:
    console.print(trials_table(cluster, tuned["trial"]))
    console.print(transitions_table(progress))
    metrics, samples = trained["metrics"], trained.get("samples") or {}
    worst = max(value for trial in cluster.trials() if (value := metric(trial, METRIC)) is not None)
    rows = [
        ("best parameters", ", ".join(f"{name}={value}" for name, value in tuned["parameters"].items())),
        ("eval loss, base model", f"{metrics['base_eval_loss']:.4f}"),
        ("eval loss, tuned model", f"{metrics['eval_loss']:.4f}"),
        ("eval loss, worst trial", f"{worst:.4f}"),
        ("prompt", samples.get("prompt", "")),
        ("answer before", samples.get("before", "")),
        ("answer after", samples.get("after", "")),
        ("adapter", trained["artifact_uri"]),
        ("tune waited without a worker", f"{progress.deferred_seconds('tune'):.0f} s"),
        ("fine_tune waited without a worker", f"{progress.deferred_seconds('fine_tune'):.0f} s"),
        ("worker processes of a deferred task", str(len(progress.workers_while_deferred))),
    ]
    summary = Table("", "", title="Result", show_header=False)
    summary.columns[1].overflow = "fold"
    for name, value in rows:
        summary.add_row(name, value)
    console.print(summary)


def trials_table(cluster: Cluster, best: str) -> Table:
    trials = cluster.trials()
    names = list(parameters(trials[0]))
    table = Table(title=f"{len(trials)} trials")
    for column in ("trial", *names, METRIC, "seconds", "status"):
        table.add_column(column, justify="left" if column in {"trial", "status"} else "right")
    for trial in trials:
        name, value, duration = trial["metadata"]["name"], metric(trial, METRIC), seconds(trial)
        table.add_row(
            name,
            *(_short(text) for text in parameters(trial).values()),
            "-" if value is None else f"{value:.4f}",
            "-" if duration is None else f"{duration:.0f}",
            phase(trial),
            style="bold green" if name == best else "",
        )
    return table


def transitions_table(progress: Progress) -> Table:
    table = Table(title="Task states")
    for column in ("seconds", "task", "state", "worker process"):
        table.add_column(column)
    begin = progress.transitions[0].at
    for transition in progress.transitions:
        pids = ", ".join(str(pid) for pid in transition.worker_pids) or "none"
        table.add_row(f"{transition.at - begin:.0f}", transition.task_id, transition.state, pids)
    return table


def _short(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text
