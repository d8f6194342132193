"""Many Jobs that end when a test says so, the waits for them, and what these ask the API server."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks.client import FIRST_PAGE
from airflow_llmtune.hooks.kubeflow import KubeflowHook
from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import IDENTITY_LABEL, Outcome, Phase
from airflow_llmtune.triggers.base import WaitTrigger
from airflow_llmtune.triggers.trainer import JobTrigger
from clients import http_client
from objects import shell_job, tuning_experiment
from waiting import eventually

OURS = {IDENTITY_LABEL: "0123456789abcdef"}
ENDS: tuple[Phase, ...] = ("Succeeded", "Failed", "Succeeded")


def held_job(name: str, labels: dict[str, str]) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["true"]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": True, "template": pod}}


def new_namespace(plane: ControlPlane) -> str:
    """One in which the Jobs of no other test are listed."""
    name = f"waits-{uuid.uuid4().hex[:8]}"
    with http_client(plane.kubeconfig) as http:
        labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
        http.post("/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}}).raise_for_status()
    return name


def held_search(name: str) -> dict[str, Any]:
    """An Experiment whose trials never start to run."""
    trial = shell_job("echo ${trialParameters.rate}", suspend=True)
    return {**tuning_experiment(name, trial, parallelTrialCount=1), "metadata": {"name": name, "labels": OURS}}


class HeldJobs:
    """Suspended Jobs of one namespace; each end is written into the status, as a controller would."""

    def __init__(self, kubeconfig: str, namespace: str = "default") -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def connect(self) -> Any:
        """A client of its own each time: what the waits hold open is theirs alone."""
        return KubeflowHook(None, config_file=self.kubeconfig, api_retry_timeout=10).connect()

    async def create(
        self,
        count: int,
        *,
        prefix: str = "job",
        labels: dict[str, str] = OURS,
        trigger: type[WaitTrigger] = JobTrigger,
        **settings: Any,
    ) -> list[WaitTrigger]:
        """Return the triggers that wait for them."""
        async with self.connect() as client:
            names = [f"{prefix}-{number}" for number in range(count)]
            made = [await client.create(job.KIND, self.namespace, held_job(name, labels)) for name in names]
        return [self.trigger(one, trigger, **settings) for one in made]

    def trigger(self, made: dict[str, Any], trigger: type[WaitTrigger] = JobTrigger, **settings: Any) -> WaitTrigger:
        where = {"namespace": self.namespace, "kubernetes_conn_id": None, "config_file": self.kubeconfig}
        name, uid = made["metadata"]["name"], made["metadata"]["uid"]
        return trigger(**{"name": name, "uid": uid, **where, "api_retry_timeout": 60.0, **settings})

    async def end(self, triggers: Iterable[WaitTrigger]) -> list[Phase]:
        """Let them end one way or the other; return which."""
        phases = []
        async with self.connect() as client:
            for number, trigger in enumerate(triggers):
                phases.append(ENDS[number % len(ENDS)])
                await client.patch(job.KIND, self.namespace, f"{trigger.name}/status", ended(phases[-1]))
        return phases

    async def delete(self, triggers: Iterable[WaitTrigger]) -> None:
        async with self.connect() as client:
            for trigger in triggers:
                assert await client.delete(job.KIND, self.namespace, trigger.name)


def ended(phase: Phase) -> dict[str, Any]:
    type_ = {"Succeeded": "Complete", "Failed": "Failed"}[phase]
    return {"status": {"conditions": [{"type": type_, "status": "True", "reason": f"Told{phase}"}]}}


async def events(trigger: WaitTrigger) -> list[Outcome]:
    """All that it fires."""
    return [Outcome.from_event(event.payload) async for event in trigger.run()]


def start(triggers: Sequence[WaitTrigger]) -> list[asyncio.Task[list[Outcome]]]:
    return [asyncio.create_task(events(trigger)) for trigger in triggers]


async def phases(waits: Sequence[asyncio.Task[list[Outcome]]]) -> list[Phase]:
    """How each has ended, once all have, each by one event."""
    found = await asyncio.gather(*waits)
    assert {len(fired) for fired in found} <= {1}
    return [fired[0].phase for fired in found]


async def reasons(waits: Sequence[asyncio.Task[list[Outcome]]]) -> list[str]:
    found = await asyncio.gather(*waits)
    assert {len(fired) for fired in found} <= {1}
    return [fired[0].reason for fired in found]


async def cancel(waits: Sequence[asyncio.Task[Any]], times: int = 1) -> None:
    for _ in range(times):
        for wait in waits:
            wait.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*waits, return_exceptions=True)


async def suffered(plane: ControlPlane, times: int, **fault: Any) -> None:
    """Let the open watch end, and what follows meet the fault so many times."""
    before = plane.faults.injected
    plane.faults.add(**fault, times=times)
    plane.drop_watches()
    await eventually(lambda: plane.faults.injected >= before + times)


class Requests:
    """How many requests the API server has answered since this was made, by verb."""

    def __init__(self, plane: ControlPlane, resource: str = "jobs.batch") -> None:
        self._plane = plane
        self._resource = resource
        self._before = plane.requests

    def __getitem__(self, verb: str) -> int:
        return self._plane.requests[verb, self._resource] - self._before[verb, self._resource]

    @property
    def all(self) -> Counter[tuple[str, str]]:
        return self._plane.requests - self._before


def pages(count: int) -> int:
    """Of a list of so many small objects: what does not fit into the first one fits into the next."""
    return 1 if count <= FIRST_PAGE else 2
