"""The gate's DAG on Airflow itself: its database keeps the champion, skips what follows, and emits the events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
DAGS = Path(__file__).parent / "dags"

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def run(losses: list[str], home: Path) -> list[dict[str, Any]]:
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "PYTHONPATH": str(ROOT),
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([airflow, "db", "migrate"], env=env, check=True, capture_output=True)
    done = subprocess.run([sys.executable, str(DAGS / "gate.py"), *losses], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_gate_keeps_the_best_and_skips_the_deployment_of_a_worse_one(tmp_path):
    first, better, worse = run(["2.5", "2.25", "2.75"], tmp_path)
    ran = dict.fromkeys(["champion", "train", "compare", "deploy", "promote", "silent", "each", "forgetful"], "success")
    skipped = dict.fromkeys(["compare", "deploy", "promote"], "skipped")
    assert [told["states"] for told in (first, better, worse)] == [ran, ran, {**ran, **skipped}]

    # None crosses XCom: the first run has no champion to tell of.
    assert first["xcoms"]["champion.artifact_uri.-1"] is None
    address = first["xcoms"]["promote.artifact_uri.-1"]
    assert better["xcoms"]["deploy.return_value.-1"]["before"] == address
    assert worse["xcoms"]["champion.metrics.-1"] == {"eval_loss": 2.25}
    decision = worse["xcoms"]["compare.decision.-1"]
    assert decision["reason"] == "eval_loss 2.75 is 0.5 worse than the champion's 2.25"

    # A mapped task is mapped over its models; Airflow itself opens only the assets that it knew before.
    assert [worse["xcoms"][f"each.exists.{index}"] for index in (0, 1)] == [True, False]

    # Only a promotion is an event, and a task that found nothing changed is none.
    events = [[(name, extra["metrics"]) for name, extra in told["events"]] for told in (first, better, worse)]
    assert events == [[("gated-model", {"eval_loss": 2.5})], [("gated-model", {"eval_loss": 2.25})], []]

    assert "does not keep the state of asset 'unknown'" in first["xcoms"]["forgetful.return_value.-1"]
