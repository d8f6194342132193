"""Training jobs of several nodes: real torchrun agents that meet over loopback, through the whole control plane."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
from clients import Cluster
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


class Workloads(Cluster):
    """With short ways to start one and to what its pods print."""

    def start(self, kind: Kind, name: str, spec: Object) -> None:
        self.create(kind, {"metadata": {"name": name}, "spec": spec})

    def logs(self, selector: str) -> list[str]:
        return sorted(self.log(pod["metadata"]["name"]) for pod in self.list(POD, selector))

    def sums(self, selector: str) -> list[str]:
        """What the processes print, among whatever torch has to tell."""
        lines = [line for log in self.logs(selector) for line in log.splitlines()]
        return sorted(line for line in lines if line.startswith("sum="))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workloads]:
    with ControlPlane(job_backoff_base_seconds=0.05) as plane:
        path = tmp_path_factory.mktemp("kubeconfig") / "config"
        plane.write_kubeconfig(path)
        cluster = Workloads(path)
        yield cluster
        cluster.close()


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    """torchrun as a pod starts it: all that it needs to know comes from its environment."""
    script = tmp_path / "all_reduce.py"
    script.write_text(ALL_REDUCE)
    return [str(Path(sys.executable).with_name("torchrun")), str(script)]


def test_the_nodes_of_a_pytorch_job_meet(cluster: Workloads, program: list[str]) -> None:
    container = {"name": "pytorch", "image": "pytorch", "command": program}
    replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    replicas = {"Master": replica, "Worker": replica}
    cluster.start(PYTORCH_JOB, "meet", {"nprocPerNode": "1", "pytorchReplicaSpecs": replicas})
    assert cluster.ended(PYTORCH_JOB, "meet", "Succeeded", "Failed")["type"] == "Succeeded"
    label = "training.kubeflow.org/job-name=meet"
    # The job has succeeded with its master; the worker may still be about to end.
    wait_for(lambda: all(pod["status"]["phase"] == "Succeeded" for pod in cluster.list(POD, label)), SECONDS)
    assert cluster.sums(label) == ["sum=3 size=2 node=0", "sum=3 size=2 node=1"]


def test_the_nodes_of_a_train_job_meet(cluster: Workloads, program: list[str]) -> None:
    trainer = {"numNodes": 2, "image": "pytorch", "command": program}
    cluster.start(TRAIN_JOB, "meet", {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer})
    condition = cluster.ended(TRAIN_JOB, "meet", "Complete", "Failed")
    assert (condition["type"], condition["reason"]) == ("Complete", "AllJobsCompleted")
    sums = cluster.sums("jobset.sigs.k8s.io/jobset-name=meet")
    assert sums == ["sum=3 size=2 node=0", "sum=3 size=2 node=1"]
    (status,) = [one["status"]["jobsStatus"] for one in cluster.list(TRAIN_JOB) if one["metadata"]["name"] == "meet"]
    assert status == [{"name": "node", "ready": 0, "succeeded": 1, "failed": 0, "active": 0, "suspended": 0}]


def test_a_runtime_without_retries_fails_a_train_job_with_its_first_crash(cluster: Workloads) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "node", "image": "busybox"}]}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {"metadata": {"labels": labels}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    template = {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}}
    cluster.start(TRAINING_RUNTIME, "once", {"mlPolicy": {"torch": {}}, "template": template})
    trainer = {"command": ["sh", "-c", "echo boom; exit 3"]}
    cluster.start(TRAIN_JOB, "crash", {"runtimeRef": {"name": "once", "kind": "TrainingRuntime"}, "trainer": trainer})
    condition = cluster.ended(TRAIN_JOB, "crash", "Complete", "Failed")
    assert (condition["type"], condition["reason"]) == ("Failed", "FailedJobs")
    assert condition["message"].endswith("(first failed job: crash-node-0)")
    assert cluster.logs("jobset.sigs.k8s.io/jobset-name=crash") == ["boom\n"]


def test_steps_of_a_job_set_wait_for_each_other(cluster: Workloads, tmp_path: Path) -> None:
    def step(name: str, script: str, **fields: Any) -> Object:
        pod = {"containers": [{"name": "main", "image": "busybox", "command": ["sh", "-c", script]}]}
        return {"name": name, "template": {"spec": {"completions": 1, "template": {"spec": pod}}}, **fields}

    first = step("first", f"sleep 0.3; echo done > {tmp_path}/step")
    second = step("second", f"cat {tmp_path}/step", dependsOn=[{"name": "first", "status": "Complete"}])
    cluster.start(JOB_SET, "steps", {"replicatedJobs": [first, second]})
    assert cluster.ended(JOB_SET, "steps", "Completed", "Failed")["type"] == "Completed"
    assert cluster.logs("jobset.sigs.k8s.io/replicatedjob-name=second") == ["done\n"]


def test_a_job_set_is_run_again_as_its_failure_policy_says(cluster: Workloads, tmp_path: Path) -> None:
    script = f"test -e {tmp_path}/tried && exit 0; touch {tmp_path}/tried; exit 1"
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x", "command": ["sh", "-c", script]}]}
    job = {"spec": {"completions": 1, "backoffLimit": 0, "template": {"spec": pod}}}
    spec = {"replicatedJobs": [{"name": "node", "template": job}], "failurePolicy": {"maxRestarts": 1}}
    cluster.start(JOB_SET, "again", spec)
    assert cluster.ended(JOB_SET, "again", "Completed", "Failed")["type"] == "Completed"
    (made,) = [one for one in cluster.list(JOB_SET) if one["metadata"]["name"] == "again"]
    assert made["status"]["restarts"] == 1


def test_each_pod_of_an_indexed_job_knows_its_index_and_fails_on_its_own(cluster: Workloads) -> None:
    script = "echo index $JOB_COMPLETION_INDEX; test $JOB_COMPLETION_INDEX -ne 1"
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    spec = {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimitPerIndex": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
    }
    cluster.start(JOB, "indexed", spec)
    assert cluster.ended(JOB, "indexed", "Complete", "Failed")["reason"] == "FailedIndexes"
    (job,) = [one for one in cluster.list(JOB) if one["metadata"]["name"] == "indexed"]
    status = job["status"]
    assert (status["completedIndexes"], status["failedIndexes"]) == ("0,2", "1")
    assert (status["succeeded"], status["failed"], status["uncountedTerminatedPods"]) == (2, 2, {})
    assert cluster.logs("job-name=indexed") == ["index 0\n", "index 1\n", "index 1\n", "index 2\n"]


def test_an_experiment_tunes_train_jobs(cluster: Workloads) -> None:
    trainer = {"image": "busybox", "command": ["sh", "-c", "echo loss=${trialParameters.rate}"]}
    trial_spec = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer},
    }
    body = tuning_experiment("trainjobs", trial_spec, container="node", maxTrialCount=2, retain=True)
    cluster.start(EXPERIMENT, "trainjobs", body["spec"])
    assert cluster.ended(EXPERIMENT, "trainjobs", "Succeeded", "Failed")["type"] == "Succeeded"
    trials = cluster.list(TRIAL, "katib.kubeflow.org/experiment=trainjobs")
    for trial in trials:
        (metric,) = trial["status"]["observation"]["metrics"]
        assert metric["latest"] == trial["spec"]["parameterAssignments"][0]["value"]
        (end,) = [one for one in trial["status"]["conditions"] if one["type"] == "Succeeded"]
        assert (end["status"], end["reason"]) == ("True", "TrialSucceeded. Job reason: AllJobsCompleted")
    assert len(trials) == 2
