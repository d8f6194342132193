"""The project's own operator beside the SDKs on one control plane: what it makes, they can read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks import LOSS, any_experiment, raw_experiment

Kubectl = Callable[..., str]
RunClient = Callable[..., Any]


def context() -> dict[str, Any]:
    """What Airflow tells a task instance on its first try."""
    ti = SimpleNamespace(
        id=uuid.uuid4(),
        dag_id="interop",
        task_id="any",
        run_id=f"manual__{uuid.uuid4().hex[:8]}",
        map_index=-1,
        try_number=1,
        max_tries=1,
        start_date=datetime.now(UTC),
    )
    return {"ti": ti, "dag_run": SimpleNamespace(run_after=datetime.now(UTC), clear_number=0), "run_id": ti.run_id}


def test_an_operators_experiment_is_the_same_to_kubectl_and_to_the_sdk(
    kubeconfig: Path, kubectl: Kubectl, run_client: RunClient
) -> None:
    operator = any_experiment(str(kubeconfig), raw_experiment(LOSS), deferrable=False)
    result = operator.execute(context())
    name = result["experiment"]
    status = json.loads(kubectl("get", "experiment", name, "-o", "json"))["status"]
    assert status["currentOptimalTrial"]["bestTrialName"] == result["trial"]
    read = run_client("katib", "katib_read", name)
    assert read["best"] == result["trial"]
    assert {name: float(value) for name, value in read["parameters"].items()} == result["parameters"]
    assert float(read["metrics"]["loss"]) == result["metrics"]["loss"]
    kubectl("delete", "experiment", name)
