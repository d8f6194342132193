"""kubeflow 0.5, unmodified: its optimizer on Katib and its trainer on TrainJobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RunClient = Callable[..., Any]


def test_optimize_runs_train_jobs_to_the_best_result(run_client: RunClient) -> None:
    done = run_client("kubeflow", "kubeflow_optimize")
    assert done["status"] == "Complete"
    assert "Complete" in done["seen"]
    assert done["trials"] == [["Complete", "node-0"]] * 3
    assert set(done["parameters"]) == {"rate", "optimizer"}
    assert f"loss={done['metrics']['loss']}" in done["log"]
    assert any(line.startswith("loss=") for line in done["followed"])
    assert ["Trial", "JobSucceeded"] in done["events"]
    assert done["listed"]


def test_a_function_is_trained_on_two_nodes(run_client: RunClient) -> None:
    done = run_client("kubeflow", "kubeflow_train")
    assert "torch-distributed" in done["runtimes"]
    assert done["framework"] == "torch"
    assert done["status"] == "Complete"
    assert done["steps"] == [["node-0", "Succeeded"], ["node-1", "Succeeded"]]
    for rank, log in enumerate(done["logs"]):
        assert f"hello from {rank} of 2" in log
    assert {"Pod", "JobSet"} <= set(done["events"])
    assert done["listed"]
