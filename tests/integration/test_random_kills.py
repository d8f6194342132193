"""Kills at moments that nobody has chosen, while Experiments of every kind of job run."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from benchmarks import push_metric
from benchmarks.workloads import DB_MANAGER, batch_job, pytorch_job, train_job
from objects import EXPERIMENTS, PODS, Object, tuning_experiment
from program import Program, processes
from waiting import wait_for

KUBEFLOW = EXPERIMENTS.removesuffix("experiments")
JOBS = (
    "/apis/batch/v1/namespaces/default/jobs",
    "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs",
    "/apis/trainer.kubeflow.org/v1alpha1/namespaces/default/trainjobs",
)
SAY = "echo loss=${trialParameters.rate}"
# Again and again, for the control plane may be away just when it is to be told.
PUSH = f"until {shlex.join([sys.executable, push_metric.__file__])} $DB_MANAGER; do sleep 0.1; done"
KINDS = {
    "job": (batch_job, "main", "StdOut", SAY),
    "push": (batch_job, "main", "Push", PUSH),
    "pytorch": (pytorch_job, "pytorch", "StdOut", SAY),
    "train": (train_job, "node", "StdOut", SAY),
}
TRIALS = 6
KILLS = 5
SECONDS = 60


class World:
    """An Experiment of each kind, all at once; each trial notes its parameter when its process starts."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.marker = f"trial-{uuid4().hex}"
        self._notes = folder / "notes"
        for kind in KINDS:
            program.create(EXPERIMENTS, self._experiment(kind))

    def _experiment(self, kind: str) -> Object:
        job, container, collector, report = KINDS[kind]
        note = f": {self.marker}; echo {kind} ${{trialParameters.rate}} >> {self._notes}"
        # In parentheses, for the output of all goes to the collector.
        command = ["sh", "-c", f"({note}; sleep 0.5; {report})"]
        environment = [{"name": "DB_MANAGER", "value": DB_MANAGER}]
        training = {"name": container, "image": "busybox", "command": command, "env": environment}
        return tuning_experiment(
            kind,
            job({"restartPolicy": "Never", "containers": [training]}),
            container=container,
            retain=True,
            maxTrialCount=TRIALS,
            metricsCollectorSpec={"collector": {"kind": collector}},
        )

    def items(self, path: str) -> list[Object]:
        found: list[Object] = self.program.get(path)["items"]
        return found

    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()

    def has_completed(self) -> bool:
        return all(
            any(has["type"] == "Succeeded" and has["status"] == "True" for has in one["status"]["conditions"])
            for one in self.items(EXPERIMENTS)
        )


def name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def owner(obj: Object) -> Object:
    (found,) = obj["metadata"]["ownerReferences"]
    return dict(found)


def check_that_all_is_there_once(world: World) -> None:
    trials = world.items(f"{KUBEFLOW}trials")
    assert Counter(owner(one)["name"] for one in trials) == dict.fromkeys(KINDS, TRIALS)
    for one in world.items(EXPERIMENTS):
        counters = {field: count for field, count in one["status"].items() if field.startswith("trial")}
        assert counters == {"trials": TRIALS, "trialsSucceeded": TRIALS}
    suggested = [each["name"] for one in world.items(f"{KUBEFLOW}suggestions") for each in one["status"]["suggestions"]]
    # A TrainJob's own Jobs belong to its JobSet.
    owners = [owner(one) for path in JOBS for one in world.items(path)]
    assert Counter(suggested) == Counter(one["name"] for one in owners if one["kind"] == "Trial")
    assert Counter(suggested) == Counter(map(name, trials))
    assert len(world.items(PODS)) == len(trials)
    given = [f"{owner(one)['name']} {one['spec']['parameterAssignments'][0]['value']}" for one in trials]
    assert Counter(world.notes()) == Counter(given)


@pytest.mark.parametrize("seed", [1, 8])
def test_experiments_of_every_kind_survive_kills_at_any_moment(program: Program, tmp_path: Path, seed: int) -> None:
    moments = Random(seed)
    world = World(program, tmp_path)
    for number in range(KILLS):
        time.sleep(moments.uniform(0.05, 0.7))
        program.kill()
        if number == KILLS // 2:
            program.start_and_kill(moments.uniform(0.1, 0.7))
        program.restart()
    wait_for(world.has_completed, SECONDS)
    check_that_all_is_there_once(world)
    program.close()
    assert processes(world.marker) == []
    # Neither the control plane itself nor the parent of its containers.
    assert processes(str(program.state)) == []
