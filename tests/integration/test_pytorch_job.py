"""Any PyTorchJob over HTTPS against the control plane: the lifecycle is that of every other kind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_llmtune.exceptions import TrainingFailedError
from airflow_llmtune.operators.trainer import PyTorchJobOperator
from airflow_llmtune.resources import pod, pytorch_job
from tasks import mine
from waiting import wait_for

CRASH = "echo the model lies nowhere; exit 3"


@pytest.fixture
def any_job(kubeconfig):
    """Make the task for a script that each node runs."""

    def make(script: str, **changes: Any) -> PyTorchJobOperator:
        container = {"name": "pytorch", "image": "busybox", "command": ["sh", "-c", script]}
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
        replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
        manifest = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "spec": {"pytorchReplicaSpecs": {"Master": replica}},
        }
        arguments = {"pytorch_job": manifest, "kubernetes_conn_id": None, "config_file": kubeconfig, **changes}
        return PyTorchJobOperator(task_id="torch", **arguments)

    return make


@pytest.fixture
def found(ask, run):
    def look(kind: Any = pytorch_job.KIND, selector: str = "") -> list[dict[str, Any]]:
        items, _ = ask(lambda client: client.list_all(kind, "default", label_selector=selector or mine(run)))
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    return look


@pytest.mark.parametrize("deferrable", [True, False])
def test_it_is_waited_for_with_or_without_a_worker(any_job, run, found, deferrable):
    result = run.complete(any_job("test $WORLD_SIZE = 1", deferrable=deferrable))
    assert run.deferrals == int(deferrable)
    assert [item["metadata"]["name"] for item in found()] == [result["job"]]


def test_a_retry_adopts_the_job_of_a_worker_that_was_lost(any_job, run, found):
    first = run.defer(any_job("sleep 1"))
    result = run.complete(any_job("sleep 1"))
    assert [item["metadata"]["name"] for item in found()] == [result["job"]] == [first.name]


def test_a_crash_is_told_in_the_programs_own_words_and_a_retry_starts_another(any_job, run, found):
    for attempt in (1, 2):
        with pytest.raises(TrainingFailedError, match=r"(?s)exit code 3.*the model lies nowhere"):
            run.complete(any_job(CRASH))
        assert len(found()) == attempt


def test_a_killed_task_leaves_neither_job_nor_pods(any_job, run, found, airflow_says):
    airflow_says("failed")
    operator = any_job("sleep 60")
    with pytest.raises(TaskDeferred):
        operator.execute(run.new_try())
    (made,) = found()
    pods = pytorch_job.pod_selector(made["metadata"]["name"])
    wait_for(lambda: found(pod.KIND, pods))
    operator.on_kill()
    wait_for(lambda: not found() and not found(pod.KIND, pods))


def test_a_deadline_ends_the_wait_and_deletes_the_job(any_job, run, found):
    with pytest.raises(AirflowFailException, match="deadline"):
        run.complete(any_job("sleep 60", timeout=timedelta(seconds=1)))
    wait_for(lambda: not found())


def test_mistakes_in_a_manifest_are_one_error_before_anything_is_created(any_job, run, found):
    manifest = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {}}}
    with pytest.raises(AirflowFailException, match="pytorchReplicaSpecs"):
        run.complete(any_job("exit 0", pytorch_job=manifest))
    assert found() == []
