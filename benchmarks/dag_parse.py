"""``python -m benchmarks.dag_parse``: what Airflow pays for a DAG file of ours, each time that it parses it.

Each figure is a median over fresh interpreters, which take turns, so that a busy moment of the machine hits all alike.
The goal is held against CPU time: the clock also counts what else the machine has to do.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from airflow_llmtune import links, operators

ROOT = Path(__file__).parent.parent
RUNS = 7
GOAL_MS = 15.0
OPERATORS, ALL_EXAMPLES = "all operator modules", "all example DAGs"
EMPTY, POD = "a DAG of an EmptyOperator", "a DAG of a KubernetesPodOperator"
Figures = dict[str, dict[str, Any]]

# What a DAG author can import of ours.
MODULES = (
    *(
        f"{package.__name__}.{found.name}"
        for package in (operators, links)
        for found in pkgutil.iter_modules(package.__path__)
    ),
    "airflow_llmtune.notifications",
    "airflow_llmtune.resources.search_space",
)
_DAG = """
from airflow.providers.{module} import {operator}
from airflow.sdk import DAG

with DAG("peer", schedule=None) as dag:
    {operator}(task_id="task")
"""
_PEERS = {
    EMPTY: _DAG.format(module="standard.operators.empty", operator="EmptyOperator"),
    POD: _DAG.format(module="cncf.kubernetes.operators.pod", operator="KubernetesPodOperator"),
}


def measure(runs: int = RUNS) -> Figures:
    with tempfile.TemporaryDirectory(prefix="llmtune-benchmark-") as folder:
        what = _what(Path(folder))
        found: dict[str, list[Mapping[str, float]]] = {name: [] for name in what}
        for number in range(runs + 1):
            for name, arguments in what.items():
                told = _run(arguments, Path(folder, "airflow"))
                if number:  # The first writes the bytecode and Airflow's configuration.
                    found[name].append(told)
    figures: Figures = {
        name: {key: statistics.median(one[key] for one in each) for key in each[0]} for name, each in found.items()
    }
    figures[OPERATORS] |= {"goal_ms": GOAL_MS, "met": figures[OPERATORS]["cpu_ms"] <= GOAL_MS}
    return figures


def _what(folder: Path) -> dict[str, Sequence[str]]:
    examples = {path.name: [str(path)] for path in sorted((ROOT / "dags").glob("*.py"))}
    peers = {name: [str(folder / f"peer_{number}.py")] for number, name in enumerate(_PEERS)}
    for name, (path,) in peers.items():
        Path(path).write_text(_PEERS[name])
    together = [path for (path,) in examples.values()]
    return {OPERATORS: MODULES, EMPTY: peers[EMPTY], **examples, ALL_EXAMPLES: together, POD: peers[POD]}


def _run(arguments: Sequence[str], home: Path) -> Mapping[str, float]:
    environment = {**os.environ, "AIRFLOW_HOME": str(home)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Airflow keeps bytecode, so its imports are to find some.
    command = [sys.executable, "-m", "benchmarks.parsed", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    told: Mapping[str, float] = json.loads(done.stdout.rpartition("parsed: ")[2])
    return told


def show(console: Console, figures: Figures) -> None:
    table = Table("beyond `import airflow.sdk`", "CPU", "clock", "memory", "modules", title="DAG parse")
    for name, one in figures.items():
        goal = f" (goal: {one['goal_ms']:g} ms)" if "goal_ms" in one else ""
        times = f"{one['cpu_ms']:.1f} ms{goal}", f"{one['ms']:.1f} ms"
        table.add_row(name, *times, f"{one['mb']:.1f} MB", f"{one['modules']:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dag_parse", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="fresh interpreters for each (default: %(default)s)")
    figures = measure(parser.parse_args().runs)
    show(Console(width=120), figures)
    print("figures:", json.dumps(figures))


if __name__ == "__main__":
    main()
