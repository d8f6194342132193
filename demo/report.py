"""What the demo prints at its end."""

from __future__ import annotations

from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from demo.cluster import Cluster, metric, parameters, phase, seconds
from demo.progress import METRIC, Progress

JSON = dict[str, Any]
WAITING_STEPS = ("tune", "fine_tune", "deploy")
# Where the runtimes of KServe serve OpenAI's API, below the URL of the InferenceService.
CHAT = "/openai/v1/chat/completions"


def print_report(
    console: Console, cluster: Cluster, progress: Progress, instances: list[JSON], results: dict[str, JSON]
) -> None:
    tuned, trained, compared = (results[step] for step in ("tune", "fine_tune", "compare"))
    console.print(trials_table(cluster, tuned["trial"]))
    console.print(transitions_table(progress))
    console.print(steps_table(instances, progress))
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
        ("gate", compared["decision"]["reason"]),
        ("served at", results["deploy"]["url"]),
        ("worker processes of a deferred task", str(len(progress.workers_while_deferred))),
    ]
    summary = Table("", "", title="Result", show_header=False)
    summary.columns[1].overflow = "fold"
    for name, value in rows:
        summary.add_row(name, value)
    console.print(summary)


def print_answer(console: Console, cluster: Cluster, deployed: JSON, prompt: str) -> None:
    """Ask the served model, as any client of OpenAI's API would."""
    response = httpx.post(
        deployed["url"] + CHAT,
        headers={"Authorization": f"Bearer {cluster.token}"},
        json={
            "model": deployed["served_model_name"],
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": 32,
        },
        timeout=60,
    )
    response.raise_for_status()
    answer = response.json()["choices"][0]["message"]["content"]
    console.print(f"POST {deployed['url']}{CHAT}: {response.status_code}", highlight=False, soft_wrap=True)
    console.print(f"  {prompt}  ->  {answer}", highlight=False, markup=False)


def steps_table(instances: list[JSON], progress: Progress) -> Table:
    table = Table(title="Steps")
    for column in ("task", "state", "seconds", "of them without a worker"):
        table.add_column(column, justify="left" if column in {"task", "state"} else "right")
    for instance in sorted(instances, key=lambda instance: str(instance["end_date"])):
        waited = progress.deferred_seconds(instance["task_id"])
        told = f"{waited:.0f}" if instance["task_id"] in WAITING_STEPS else ""
        table.add_row(instance["task_id"], instance["state"], f"{instance['duration'] or 0:.0f}", told)
    return table


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
