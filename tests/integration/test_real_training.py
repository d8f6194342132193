"""The trainer itself, on a tiny model, behind the operators: its result crosses the control plane whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import TrainingFailedError
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator
from airflow_llmtune.resources import job, pod
from task_run import Run

# Several processes, each of which imports torch, beside other tests.
pytestmark = pytest.mark.timeout(300)
SETTINGS = {"dtype": "float32", "max_length": 64}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(images={"airflow-llmtune/trainer": Path(sys.prefix)}) as plane:
        yield plane


@pytest.fixture
def arguments(tiny: Path, kubeconfig: str) -> dict[str, Any]:
    return {
        "model": str(tiny / "model"),
        "dataset": str(tiny / "data"),
        "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        "kubernetes_conn_id": None,
        "config_file": kubeconfig,
    }


def epoch(output: Path, rows_per_batch: int, **arguments: Any) -> FineTuneLLMOperator:
    settings = {**SETTINGS, "num_train_epochs": 1, "learning_rate": 5e-3}
    batch = {"per_device_train_batch_size": rows_per_batch}
    return FineTuneLLMOperator(task_id="train", output_uri=str(output), trainer_args={**settings, **batch}, **arguments)


def test_an_adapter_is_evaluated_as_its_training_was(run: Run, arguments: dict[str, Any], tmp_path: Path) -> None:
    training = FineTuneLLMOperator(
        task_id="train",
        output_uri=str(tmp_path / "adapter"),
        hyperparameters={"learning_rate": 5e-3, "lora_r": 4},
        trainer_args={**SETTINGS, "max_steps": 20, "evaluate_base_model": True},
        checkpoint_steps=10,
        **arguments,
    )
    trained = run.complete(training)
    judged, base = (
        Run().complete(EvaluateLLMOperator(task_id="judge", trainer_args=SETTINGS, adapter=adapter, **arguments))
        for adapter in (trained["artifact_uri"], "")
    )

    assert judged["metrics"]["eval_loss"] == pytest.approx(trained["metrics"]["eval_loss"], rel=1e-6)
    assert base["metrics"]["eval_loss"] == pytest.approx(trained["metrics"]["base_eval_loss"], rel=1e-6)
    assert (judged["artifact_uri"], base["artifact_uri"]) == (trained["artifact_uri"], None)
    assert judged["manifest"]["evaluation"] == base["manifest"]["evaluation"] == trained["manifest"]["evaluation"]
    assert trained["manifest"]["parameters"] == {
        **SETTINGS, "learning_rate": 5e-3, "lora_r": 4, "max_steps": 20, "evaluate_base_model": True, "save_steps": 10,
    }  # fmt: skip
    assert trained["manifest"]["rows"] == {"train": 48, "eval": 12}
    assert not (tmp_path / "adapter" / ".checkpoints").exists()


def test_a_retry_goes_on_where_the_lost_pod_was(run: Run, arguments: dict[str, Any], tmp_path: Path, ask: Any) -> None:
    settings = {**SETTINGS, "max_steps": 600}
    training = FineTuneLLMOperator(
        task_id="train", output_uri=str(tmp_path / "out"), trainer_args=settings, checkpoint_steps=20, **arguments
    )
    first = run.defer(training)
    _until(lambda: any((tmp_path / "out" / ".checkpoints").glob("checkpoint-*/checkpoint.json")))
    _trainer_of(tmp_path / "out").kill()
    _until(lambda: _has_failed(ask, first.name))

    result = run.complete(training)
    assert result["job"] != first.name
    assert "\nresumed from step " in ask(lambda client: _read_log(client, result["job"]))
    assert result["manifest"]["steps"] == 600


@pytest.mark.parametrize(
    "jobs",
    [
        {"job_kind": "PyTorchJob", "num_nodes": 2},
        {"job_kind": "TrainJob", "runtime_ref": "torch-distributed", "num_procs_per_node": 2},
    ],
    ids=["two nodes", "two processes"],
)
def test_several_processes_train_what_one_does(
    run: Run, arguments: dict[str, Any], tmp_path: Path, jobs: dict[str, Any]
) -> None:
    alone = Run().complete(epoch(tmp_path / "alone", rows_per_batch=8, **arguments))
    training = epoch(tmp_path / "out", rows_per_batch=4, job_options=jobs, **arguments)
    together = run.complete(training)
    assert together["metrics"]["eval_loss"] == pytest.approx(alone["metrics"]["eval_loss"], rel=1e-5)
    # Half as many as a process would have taken that had not found the other.
    assert together["manifest"]["steps"] == alone["manifest"]["steps"] == 48 / 8
    assert together["manifest"]["trained_tokens"] == alone["manifest"]["trained_tokens"]


def test_a_setting_that_an_evaluation_does_not_have_is_told_before_it_starts(
    run: Run, arguments: dict[str, Any]
) -> None:
    evaluation = EvaluateLLMOperator(task_id="judge", trainer_args={"learning_rate": 1e-3}, **arguments)
    with pytest.raises(AirflowFailException, match=r"`trainer_args\.learning_rate`='0\.001' has no part in an eval"):
        run.complete(evaluation)


def test_settings_that_contradict_each_other_are_told_before_it_starts(run: Run, arguments: dict[str, Any]) -> None:
    both = {"eval_fraction": 0.1, "dataset_test_split": "test"}
    evaluation = EvaluateLLMOperator(task_id="judge", trainer_args=both, **arguments)
    told = r"`trainer_args\.eval_fraction`='0\.1' contradicts `trainer_args\.dataset_test_split`"
    with pytest.raises(AirflowFailException, match=told):
        run.complete(evaluation)


def test_what_only_the_trainer_can_judge_is_told_in_its_words(run: Run, arguments: dict[str, Any]) -> None:
    evaluation = EvaluateLLMOperator(task_id="judge", trainer_args={"dataset_test_split": "train[:5]"}, **arguments)
    with pytest.raises(TrainingFailedError, match=r"`--dataset_test_split`='train\[:5\]' is the training split, or a"):
        run.complete(evaluation)


def _has_failed(ask: Any, name: str) -> bool:
    found = ask(lambda client: client.find(job.KIND, "default", name))
    return bool(job.read_outcome(found).phase == "Failed")


async def _read_log(client: Any, name: str) -> str:
    (item,), _ = await client.list_all(pod.KIND, "default", label_selector=job.pod_selector(name))
    return str(await client.read_log("default", item["metadata"]["name"], job.CONTAINER, tail_lines=1000))


def _trainer_of(output: Path) -> psutil.Process:
    """Return the process that trains for an output; the folder is this test's alone."""
    for process in psutil.process_iter(["cmdline"]):  # empty for one that ends meanwhile
        command = process.info["cmdline"] or []
        if f"--output_dir={output}" in command and "llmtune_trainer" in command:
            return process
    raise AssertionError("no trainer runs")


def _until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
