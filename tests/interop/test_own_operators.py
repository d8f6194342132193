"""The project's own operators beside the SDKs on one control plane: what they make, they can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from task_run import Run
from tasks import LOSS, any_experiment, fine_tune, raw_experiment, tune

Kubectl = Callable[..., str]
RunClient = Callable[..., Any]


def test_an_operators_experiment_is_the_same_to_kubectl_and_to_the_sdk(
    kubeconfig: Path, kubectl: Kubectl, run_client: RunClient
) -> None:
    operator = any_experiment(str(kubeconfig), raw_experiment(LOSS), deferrable=False)
    result = Run().complete(operator)
    name = result["experiment"]
    status = json.loads(kubectl("get", "experiment", name, "-o", "json"))["status"]
    assert status["currentOptimalTrial"]["bestTrialName"] == result["trial"]
    read = run_client("katib", "katib_read", name)
    assert read["best"] == result["trial"]
    assert {name: float(value) for name, value in read["parameters"].items()} == result["parameters"]
    assert float(read["metrics"]["loss"]) == result["metrics"]["loss"]
    kubectl("delete", "experiment", name)


@pytest.mark.parametrize("kind", ["PyTorchJob", "TrainJob"])
def test_a_deferred_search_over_an_llm_is_read_by_the_sdk(
    kubeconfig: Path, kubectl: Kubectl, run_client: RunClient, kind: str
) -> None:
    run = Run()
    result = run.complete(tune(str(kubeconfig), job_options={"job_kind": kind}))
    assert run.deferrals == 1
    name = result["experiment"]
    read = run_client("katib", "katib_read", name)
    assert read["succeeded"]
    assert read["counts"] == {"trials": 3, "succeeded": 3}
    assert len(read["trials"]) == 3
    assert read["best"] == result["trial"] == min(read["trials"], key=lambda trial: float(read["trials"][trial]))
    found = {name: float(value) for name, value in read["parameters"].items()}
    assert found == {name: float(value) for name, value in result["parameters"].items()}
    assert float(read["metrics"]["eval_loss"]) == result["metrics"]["eval_loss"]
    trial = json.loads(kubectl("get", "trial", result["trial"], "-o", "json"))
    assert trial["spec"]["runSpec"]["kind"] == kind
    kubectl("delete", "experiment", name)


@pytest.mark.parametrize(("kind", "condition"), [("PyTorchJob", "Succeeded"), ("TrainJob", "Complete")])
def test_a_deferred_fine_tune_is_read_by_kubectl(kubeconfig: Path, kubectl: Kubectl, kind: str, condition: str) -> None:
    run = Run()
    operator = fine_tune(str(kubeconfig), hyperparameters={"learning_rate": 0.01}, job_options={"job_kind": kind})
    result = run.complete(operator)
    assert run.deferrals == 1
    assert result["metrics"] == {"eval_loss": 2.0}
    job = f"{kind.lower()}/{result['job']}"
    assert "condition met" in kubectl("wait", f"--for=condition={condition}", job, "--timeout=10s")
    made = json.loads(kubectl("get", job, "-o", "json"))
    assert (made["kind"], made["metadata"]["labels"]["dag_id"]) == (kind, "dag")
    kubectl("delete", job)
