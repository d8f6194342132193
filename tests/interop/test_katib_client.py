"""kubeflow-katib 0.19, unmodified: every call that a user of ``KatibClient`` makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane

RunClient = Callable[..., Any]

WEBHOOK = 'admission webhook \\"validator.experiment.katib.kubeflow.org\\" denied the request: '


def test_an_experiment_made_of_models_is_run_read_widened_and_deleted(run_client: RunClient) -> None:
    done = run_client("katib", "katib_experiment")
    before = done["before"]
    assert "by-models" in before["listed"]
    assert before["conditions"] == [["Created", "True"], ["Running", "False"], ["Succeeded", "True"]]
    assert before["flags"] == [True, False, False, True, False]
    assert before["best"] in before["trials"]
    assert len(before["trials"]) == before["suggestions"] == len(before["details"]) == 3
    best = before["assignments"]["rate"]
    assert before["observation"] == {"accuracy": best, "loss": "0.5"}
    assert float(best) == max(float(metrics["accuracy"]) for _, metrics in before["details"])
    assert before["trial"] == "Succeeded"
    assert before["log"] == before["followed"] == [f"accuracy={best} loss=0.5"]
    assert (done["widened"], done["trials"]) == (5, 5)


@pytest.mark.parametrize(
    ("form", "kind", "trials"),
    [
        ("job", "Job", 4),
        ("one-worker", "PyTorchJob", 2),
        ("two-workers", "PyTorchJob", 2),
        ("two-processes", "PyTorchJob", 2),
        ("push", "Job", 2),
    ],
)
def test_tune_runs_a_function_as_trials(
    run_client: RunClient, plane: ControlPlane, form: str, kind: str, trials: int
) -> None:
    done = run_client("katib", "katib_tune", form, plane.db_manager_address)
    assert done["kind"] == kind
    assert done["trials"] == trials
    assert set(done["parameters"]) == {"rate", "layers"}
    # The database holds every report, the Trial's observation the fold of them.
    latest = {name: value for name, value, _ in done["database"]}
    assert latest == done["metrics"]
    if form == "push":
        assert [value for name, value, _ in done["database"] if name == "step"] == ["0", "1", "2"]
    else:
        assert f"accuracy={done['metrics']['accuracy']}" in done["log"]
    if form.startswith("two"):
        assert done["metrics"]["processes"] == "2"


def test_refusals_reach_the_caller_as_from_katib(run_client: RunClient) -> None:
    done = run_client("katib", "katib_refusals")
    assert done["best"] == "0.1"
    assert done["again"]["type"] == "Exception"
    assert done["again"]["text"] == "A Katib Experiment with the name team/as-dict already exists."
    assert done["refused"]["text"] == "Failed to create Katib Experiment: team/wrong"
    assert f"{WEBHOOK}[spec.parallelTrialCount: Invalid value: 9: " in done["refused"]["cause"]
    assert 'spec.resumePolicy: Invalid value: \\"Maybe\\": invalid ResumePolicyType]' in done["refused"]["cause"]
    assert done["absent"]["text"] == "Failed to get Katib Experiment: team/absent"
    assert done["too-small"]["text"] == "Failed to edit Katib Experiment: team/as-dict"
    assert (
        "spec.maxTrialCount: Invalid value: 1: must be greater than status.trials count" in done["too-small"]["cause"]
    )
    assert "cannot unmarshal array into Go struct field" in done["categorical"]["cause"]
    assert "distribution of type v1beta1.Distribution" in done["categorical"]["cause"]
    assert done["elsewhere"] == []
