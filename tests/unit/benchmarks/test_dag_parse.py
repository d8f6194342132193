"""What `python -m benchmarks.dag_parse` counts as the cost of a DAG file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PLAIN = """
from airflow.sdk import DAG

with DAG("plain", schedule=None):
    pass
"""
HEAVY = """
import turtledemo

held = bytearray(20_000_000)
"""


def parsed(*names: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.parsed", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.rpartition("parsed: ")[2])


def test_what_a_file_holds_and_loads_is_its_cost(tmp_path: Path) -> None:
    for name, text in (("plain", PLAIN), ("heavy", PLAIN + HEAVY)):
        (tmp_path / f"{name}.py").write_text(text)
    plain, heavy = parsed(str(tmp_path / "plain.py")), parsed(str(tmp_path / "heavy.py"))
    assert plain["mb"] < 10
    assert heavy["mb"] - plain["mb"] > 15
    assert heavy["modules"] > plain["modules"]


def test_modules_are_measured_too() -> None:
    assert parsed("airflow_llmtune.notifications")["modules"] >= 1
