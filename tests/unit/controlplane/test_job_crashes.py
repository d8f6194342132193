"""A plane that dies before any write of the Job controller, over and over, counts each pod once all the same."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import JOB, NAMESPACE, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import timestamp, utc_now
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.store import Store
from objects import Object
from registries import bind

MOST_STEPS = 400
NEVER = 10**9


class PlaneDiedError(Exception):
    pass


class MortalRegistry(Registry):
    """Dies instead of one more write than it has left."""

    writes_left = NEVER

    def _spend(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise PlaneDiedError

    def create(self, *args: Any, **kwargs: Any) -> Object:
        self._spend()
        return super().create(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> Object:
        self._spend()
        return super().update(*args, **kwargs)

    def update_status(self, *args: Any, **kwargs: Any) -> Object:
        self._spend()
        return super().update_status(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Object:
        self._spend()
        return super().delete(*args, **kwargs)


class World:
    """The test plays the kubelet, and somebody who deletes pods by hand."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        store = Store()
        self.registry = MortalRegistry(store, KatibAdmission(store), utc_now)
        self.registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        self.ends: dict[str, str] = {}
        """By the pods' uids."""

    async def reconcile(self, writes_left: int = NEVER) -> None:
        self.registry.writes_left = writes_left
        try:
            await JobController(self.registry, utc_now, backoff_base_seconds=0.0).reconcile("default", "job")
        except PlaneDiedError:
            pass
        finally:
            self.registry.writes_left = NEVER

    def pods(self) -> list[Object]:
        return self.registry.list(POD, "default")[0]

    def play_kubelet(self) -> None:
        bind(self.registry)
        for pod in self.pods():
            is_terminating = "deletionTimestamp" in pod["metadata"]
            if pod["status"]["phase"] != "Pending" or self.random.random() < 0.5:
                continue
            if is_terminating:
                self.end(pod, "Failed")
                self.registry.delete(POD, "default", pod["metadata"]["name"], grace_period_seconds=0)
            elif self.random.random() < 0.15:
                self.registry.delete(POD, "default", pod["metadata"]["name"])
            else:
                self.end(pod, self.random.choice(["Failed", "Succeeded", "Succeeded"]))

    def end(self, pod: Object, phase: str) -> None:
        ended = {"exitCode": int(phase == "Failed"), "finishedAt": timestamp(utc_now())}
        status = {"phase": phase, "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
        self.registry.update_status(POD, {**pod, "status": status})
        self.ends[pod["metadata"]["uid"]] = phase

    async def run(self, **spec: Any) -> Object:
        pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x", "command": ["a"]}]}
        body = {"metadata": {"name": "job"}, "spec": {"parallelism": 3, "template": {"spec": pod}, **spec}}
        self.registry.create(JOB, body, "default")
        for _ in range(MOST_STEPS):
            await self.reconcile(self.random.choice([0, 1, 2, 3, 4, 6, NEVER]))
            running = [one for one in self.pods() if one["status"]["phase"] == "Pending"]
            assert sum("deletionTimestamp" not in one["metadata"] for one in running) <= 3
            self.play_kubelet()
            job = self.registry.get(JOB, "default", "job")
            if {one["type"] for one in job.get("status", {}).get("conditions", [])} & {"Complete", "Failed"}:
                break
        await self.reconcile()
        return self.registry.get(JOB, "default", "job")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "spec",
    [
        {"completions": 6, "backoffLimit": 1000},
        {"completions": 6, "backoffLimit": 1000, "podReplacementPolicy": "Failed"},
        {"backoffLimit": 1000},
        {"completions": 6, "backoffLimit": 1000, "completionMode": "Indexed"},
        {"completions": 6, "backoffLimitPerIndex": 1, "completionMode": "Indexed"},
    ],
    ids=["completions", "replacing only the failed", "work queue", "indexed", "limit per index"],
)
async def test_each_pod_is_counted_once(seed: int, spec: Object) -> None:
    world = World(seed)
    status = (await world.run(**spec))["status"]
    ended = Counter(world.ends.values())
    assert status.get("failed", 0) == ended["Failed"]
    assert status["succeeded"] == ended["Succeeded"]
    assert status["uncountedTerminatedPods"] == {}
    assert [pod for pod in world.pods() if pod["metadata"].get("finalizers")] == []
    reason = status["conditions"][-1]["reason"]
    assert reason == "CompletionsReached" or ("backoffLimitPerIndex" in spec and reason == "FailedIndexes")
