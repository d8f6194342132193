"""Training jobs of several nodes: real torchrun agents that meet over loopback, through the whole control plane."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.apiserver.kinds import (
    EXPERIMENT,
    JOB,
    JOB_SET,
    POD,
    PYTORCH_JOB,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    TRIAL,
    Kind,
)
from objects import Object, tuning_experiment
from waiting import wait_for

SECONDS = 60

ALL_REDUCE = """
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(total)
print(f"sum={int(total)} size={dist.get_world_size()} node={os.environ['GROUP_RANK']}", flush=True)
dist.destroy_process_group()
"""


class Cluster:
    def __init__(self, kubeconfig: Path) -> None:
        self._api: ApiClient = new_client_from_config(str(kubeconfig))
        self._client = DynamicClient(self._api)

    def close(self) -> None:
        self._api.close()

    def _resource(self, kind: Kind) -> Any:
        return self._client.resources.get(api_version=kind.api_version, kind=kind.name)

    def create(self, kind: Kind, name: str, spec: Object) -> None:
        body = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "spec": spec}
        self._resource(kind).create(body=body, namespace="default")

    def objects(self, kind: Kind, selector: str = "") -> list[Object]:
        found = self._resource(kind).get(namespace="default", label_selector=selector).to_dict()["items"]
        return list(found)

    def ended(self, kind: Kind, name: str, *types: str) -> Object:
        """The condition that ended it, once one of these is true."""

        def end() -> Object | None:
            (obj,) = [one for one in self.objects(kind) if one["metadata"]["name"] == name]
            conditions = obj.get("status", {}).get("conditions") or []
            return next((one for one in conditions if one["type"] in types and one["status"] == "True"), None)

        found: Object = wait_for(end, SECONDS)
        return found

    def logs(self, selector: str) -> list[str]:
        return sorted(self._log(pod["metadata"]["name"]) for pod in self.objects(POD, selector))

    def sums(self, selector: str) -> list[str]:
        """What the processes print, among whatever torch has to tell."""
        lines = [line for log in self.logs(selector) for line in log.splitlines()]
        return sorted(line for line in lines if line.startswith("sum="))

    def _log(self, name: str) -> str:
        # Raw: the client's own decoding prints bytes as b'…'.
        answer = CoreV1Api(self._api).read_namespaced_pod_log(name, "default", _preload_content=False)
        return str(answer.data.decode())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ControlPlane(job_backoff_base_seconds=0.05) as plane:
        path = tmp_path_factory.mktemp("kubeconfig") / "config"
        plane.write_kubeconfig(path)
        cluster = Cluster(path)
        yield cluster
        cluster.close()


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """torchrun as a pod starts it: all that it needs to know comes from its environment."""
    script = tmp_path / "all_reduce.py"
    script.write_text(ALL_REDUCE)
    return [str(Path(sys.executable).with_name("torchrun")), str(script)]


def test_the_nodes_of_a_pytorch_job_meet(cluster: Cluster, program: list[str]) -> None:
    container = {"name": "pytorch", "image": "pytorch", "command": program}
    replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    replicas = {"Master": replica, "Worker": replica}
    cluster.create(PYTORCH_JOB, "meet", {"nprocPerNode": "1", "pytorchReplicaSpecs": replicas})
    assert cluster.ended(PYTORCH_JOB, "meet", "Succeeded", "Failed")["type"] == "Succeeded"
    label = "training.kubeflow.org/job-name=meet"
    # The job has succeeded with its master; the worker may still be about to end.
    wait_for(lambda: all(pod["status"]["phase"] == "Succeeded" for pod in cluster.objects(POD, label)), SECONDS)
    assert cluster.sums(label) == ["sum=3 size=2 node=0", "sum=3 size=2 node=1"]


def test_the_nodes_of_a_train_job_meet(cluster: Cluster, program: list[str]) -> None:
    trainer = {"numNodes": 2, "image": "pytorch", "command": program}
    cluster.create(TRAIN_JOB, "meet", {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer})
    condition = cluster.ended(TRAIN_JOB, "meet", "Complete", "Failed")
    assert (condition["type"], condition["reason"]) == ("Complete", "AllJobsCompleted")
    sums = cluster.sums("jobset.sigs.k8s.io/jobset-name=meet")
    assert sums == ["sum=3 size=2 node=0", "sum=3 size=2 node=1"]
    (status,) = [one["status"]["jobsStatus"] for one in cluster.objects(TRAIN_JOB) if one["metadata"]["name"] == "meet"]
    assert status == [{"name": "node", "ready": 0, "succeeded": 1, "failed": 0, "active": 0, "suspended": 0}]


def test_a_runtime_without_retries_fails_a_train_job_with_its_first_crash(cluster: Cluster) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "node", "image": "busybox"}]}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {"metadata": {"labels": labels}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    template = {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}}
    cluster.create(TRAINING_RUNTIME, "once", {"mlPolicy": {"torch": {}}, "template": template})
    trainer = {"command": ["sh", "-c", "echo boom; exit 3"]}
    cluster.create(TRAIN_JOB, "crash", {"runtimeRef": {"name": "once", "kind": "TrainingRuntime"}, "trainer": trainer})
    condition = cluster.ended(TRAIN_JOB, "crash", "Complete", "Failed")
    assert (condition["type"], condition["reason"]) == ("Failed", "FailedJobs")
    assert condition["message"].endswith("(first failed job: crash-node-0)")
    assert cluster.logs("jobset.sigs.k8s.io/jobset-name=crash") == ["boom\n"]


def test_steps_of_a_job_set_wait_for_each_other(cluster: Cluster, tmp_path: Path) -> None:
    def step(name: str, script: str, **fields: Any) -> Object:
        pod = {"containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}]}
        return {"name": name, "template": {"spec": {"completions": 1, "template": {"spec": pod}}}, **fields}

    first = step("first", f"sleep 0.3; echo done > {tmp_path}/step")
    second = step("second", f"cat {tmp_path}/step", dependsOn=[{"name": "first", "status": "Complete"}])
    cluster.create(JOB_SET, "steps", {"replicatedJobs": [first, second]})
    assert cluster.ended(JOB_SET, "steps", "Completed", "Failed")["type"] == "Completed"
    assert cluster.logs("jobset.sigs.k8s.io/replicatedjob-name=second") == ["done\n"]


def test_a_job_set_is_run_again_as_its_failure_policy_says(cluster: Cluster, tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/tried && exit 0; touch {tmp_path}/tried; exit 1"
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x", "command": ["sh", "-c", script]}]}
    job = {"spec": {"completions": 1, "backoffLimit": 0, "template": {"spec": pod}}}
    spec = {"replicatedJobs": [{"name": "node", "template": job}], "failurePolicy": {"maxRestarts": 1}}
    cluster.create(JOB_SET, "again", spec)
    assert cluster.ended(JOB_SET, "again", "Completed", "Failed")["type"] == "Completed"
    (made,) = [one for one in cluster.objects(JOB_SET) if one["metadata"]["name"] == "again"]
    assert made["status"]["restarts"] == 1


def test_each_pod_of_an_indexed_job_knows_its_index_and_fails_on_its_own(cluster: Cluster) -> None:
    script = "echo index $JOB_COMPLETION_INDEX; test $JOB_COMPLETION_INDEX -ne 1"
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    spec = {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimitPerIndex": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    cluster.create(JOB, "indexed", spec)
    assert cluster.ended(JOB, "indexed", "Complete", "Failed")["reason"] == "FailedIndexes"
    (job,) = [one for one in cluster.objects(JOB) if one["metadata"]["name"] == "indexed"]
    status = job["status"]
    assert (status["completedIndexes"], status["failedIndexes"]) == ("0,2", "1")
    assert (status["succeeded"], status["failed"], status["uncountedTerminatedPods"]) == (2, 2, {})
    assert cluster.logs("job-name=indexed") == ["index 0\n", "index 1\n", "index 1\n", "index 2\n"]


def test_an_experiment_tunes_train_jobs(cluster: Cluster) -> None:
    trainer = {"image": "busybox", "command": ["sh", "-c", "echo loss=${trialParameters.rate}"]}
    trial_spec = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer},
    }
    body = tuning_experiment("trainjobs", trial_spec, container="node", maxTrialCount=2, retain=True)
    cluster.create(EXPERIMENT, "trainjobs", body["spec"])
    assert cluster.ended(EXPERIMENT, "trainjobs", "Succeeded", "Failed")["type"] == "Succeeded"
    trials = cluster.objects(TRIAL, "katib.kubeflow.org/experiment=trainjobs")
    for trial in trials:
        (metric,) = trial["status"]["observation"]["metrics"]
        assert metric["latest"] == trial["spec"]["parameterAssignments"][0]["value"]
        (end,) = [one for one in trial["status"]["conditions"] if one["type"] == "Succeeded"]
        assert (end["status"], end["reason"]) == ("True", "TrialSucceeded. Job reason: AllJobsCompleted")
    assert len(trials) == 2
