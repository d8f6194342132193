"""The guide to tuning again shows code that Airflow takes, and numbers that hold."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_llmtune.operators import model_asset, unchanged
from airflow_llmtune.resources.defaults import WARM_START_SCALE

GUIDE = (Path(__file__).parent.parent.parent / "docs/how-to/retune.md").read_text()
OPTIONS, DRIFT = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_drift_dag_is_a_dag():
    scope = {}
    exec(compile(DRIFT, "retune.md", "exec"), scope)
    drift = scope["dag"].get_task("drift")
    assert drift.upstream_task_ids == {"evaluate"}
    assert drift.outlets == [scope["DRIFT"]]


def test_the_version_options_are_those_there_are():
    scope = {}
    exec(compile(OPTIONS, "retune.md", "exec"), scope)
    assert set(scope["version_options"]) <= set(unchanged._VERSIONS.values())


def test_the_numbers_are_those_of_the_code():
    assert f"`warm_start_scale={WARM_START_SCALE}`" in GUIDE
    assert (model_asset.KEPT_CHAMPIONS, model_asset.KEPT_RESULTS) == (20, 5)
    assert "the twenty before it" in GUIDE
    assert "the last five results" in GUIDE
