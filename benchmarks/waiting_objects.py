"""What is waited for: Experiments as the operator makes them and Jobs that rest, and how each of them ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_llmtune.operators.claim import Claim
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.manifest import with_metadata
from airflow_llmtune.resources import experiment, job, search_space
from airflow_llmtune.resources.meta import ResourceKind
from airflow_llmtune.resources.own_name import fill_in
from airflow_llmtune.resources.problems import Problems
from benchmarks.http_connection import Address, Connection

Object = dict[str, Any]
DAG_ID, TASK_ID, RUN_ID = "retune_every_model", "tune", "scheduled__2026-11-22T02:00:00+00:00"
_CONNECTIONS = 8
_LEAST_SECONDS = 10.0
_SINCE = "2026-11-22T02:00:07Z"
_ENDED = "2026-11-22T03:12:41Z"
_MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Kind:
    """``begun`` is the status that an object has while it is waited for, ``ended`` the one that ends the wait."""

    resource: ResourceKind
    manifests: Callable[[str, int], Iterator[Object]]
    begun: Object | None
    ended: Object


def experiments(namespace: str, count: int) -> Iterator[Object]:
    """Those of so many mapped tasks; the parameters and the trial's job are those of a real tuning."""
    operator = KatibTuneLLMOperator(
        task_id=TASK_ID,
        model="hf://meta-llama/Llama-3.2-1B",
        dataset="s3://training-data/support-dialogues/2026-11-22",
        parameters={
            "learning_rate": search_space.log_uniform(1e-5, 1e-3),
            "lora_r": search_space.categorical([8, 16, 32, 64]),
            "lora_alpha": search_space.integer(8, 128),
            "lora_dropout": search_space.double(0.0, 0.2),
            "per_device_train_batch_size": search_space.categorical([4, 8, 16]),
        },
        trainer_args={"max_steps": 500, "warmup_ratio": 0.03, "max_length": 2048},
        output_uri="s3://models/support",
        resources_per_trial={"cpu": 8, "memory": "64Gi", "gpu": 1},
        env={"HF_TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}},
    )
    problems = Problems()
    manifest = operator.build_manifest(problems)
    assert not problems.errors, problems.errors
    for index in range(count):
        claim = Claim((DAG_ID, TASK_ID, RUN_ID, index), str(uuid.uuid4()), True, RUN_ID)
        name, ours = claim.name(1), claim.annotations("0123456789abcdef")
        yield fill_in(with_metadata(manifest, name, namespace, claim.labels(1), ours), name)


def jobs(namespace: str, count: int) -> Iterator[Object]:
    container = {"name": "base", "image": "registry.example.com/batch:1", "command": ["python", "-m", "nightly"]}
    pod = {"metadata": {"labels": {"app": "nightly"}}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    for index in range(count):
        labels = {"dag_id": DAG_ID, "task_id": TASK_ID, "map_index": str(index)}
        metadata = {"name": f"nightly-{index}", "namespace": namespace, "labels": labels}
        spec = {"suspend": True, "backoffLimit": 0, "template": pod}
        yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _condition(type_: str, status: str, since: str) -> Object:
    reason, message = f"Experiment{type_}", f"Experiment is {type_.lower()}"
    times = {"lastTransitionTime": since, "lastUpdateTime": since}
    return {"type": type_, "status": status, "reason": reason, "message": message, **times}


def _optimum(loss: str) -> Object:
    metric = {"name": "eval_loss", "latest": loss, "min": loss, "max": loss}
    assignments = {"learning_rate": "0.00021", "lora_r": "16", "lora_alpha": "32", "lora_dropout": "0.05"}
    return {
        "bestTrialName": "retune-every-model-tune-5c1d7f2a",
        "observation": {"metrics": [metric]},
        "parameterAssignments": [{"name": name, "value": value} for name, value in assignments.items()],
    }


EXPERIMENTS = Kind(
    experiment.KIND,
    experiments,
    begun={
        "conditions": [_condition("Created", "True", _SINCE), _condition("Running", "True", _SINCE)],
        "startTime": _SINCE,
        "trials": 7,
        "trialsRunning": 2,
        "trialsSucceeded": 5,
        "currentOptimalTrial": _optimum("1.2345"),
    },
    ended={
        "conditions": [
            _condition("Created", "True", _SINCE),
            _condition("Running", "False", _ENDED),
            _condition("Succeeded", "True", _ENDED),
        ],
        "completionTime": _ENDED,
        "trials": 12,
        "trialsRunning": 0,
        "trialsSucceeded": 12,
        "currentOptimalTrial": _optimum("1.1987"),
    },
)
JOBS = Kind(
    job.KIND,
    jobs,
    begun=None,
    ended={
        "conditions": [
            {"type": type_, "status": "True", "lastProbeTime": _ENDED, "lastTransitionTime": _ENDED}
            for type_ in ("SuccessCriteriaMet", "Complete")
        ],
        "startTime": _SINCE,
        "completionTime": _ENDED,
        "succeeded": 1,
    },
)


async def fill(address: Address, kind: Kind, namespace: str, count: int) -> dict[str, str]:
    """Make them and return each one's uid by its name."""
    uids: dict[str, str] = {}
    manifests = kind.manifests(namespace, count)

    async def work(connection: Connection) -> None:
        for manifest in manifests:
            answer = await connection.ask("POST", kind.resource.path(namespace), json.dumps(manifest).encode())
            metadata = answer.json()["metadata"]
            uids[metadata["name"]] = metadata["uid"]
            if kind.begun is not None:
                await _write_status(connection, kind, namespace, metadata["name"], kind.begun)

    async with _connections(address) as opened, asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(work(connection))
    return uids


async def finish(
    address: Address, kind: Kind, namespace: str, names: Sequence[str], rate: float
) -> Mapping[str, float]:
    """
    End so many a second; returns when, by the wall clock, each one's write was about to be sent.

    A server that is too busy for that is given twice the time; what it has not got by then is left out.
    """
    sent: dict[str, float] = {}
    numbers = itertools.count()

    async def work(connection: Connection, begin: float) -> None:
        until = begin + max(2 * len(names) / rate, _LEAST_SECONDS)
        while (number := next(numbers)) < len(names) and time.monotonic() < until:
            await asyncio.sleep(begin + number / rate - time.monotonic())
            sent[names[number]] = time.time()
            await _write_status(connection, kind, namespace, names[number], kind.ended)

    async with _connections(address) as opened, asyncio.TaskGroup() as group:
        begin = time.monotonic()
        for connection in opened:
            group.create_task(work(connection, begin))
    return sent


async def _write_status(connection: Connection, kind: Kind, namespace: str, name: str, status: Object) -> None:
    body = json.dumps({"status": status}).encode()
    await connection.ask("PATCH", f"{kind.resource.path(namespace, name)}/status", body, _MERGE)


@asynccontextmanager
async def _connections(address: Address) -> AsyncIterator[list[Connection]]:
    opened = [await Connection(address).__aenter__() for _ in range(_CONNECTIONS)]
    try:
        yield opened
    finally:
        for connection in opened:
            await connection.__aexit__()


def save(uids: Mapping[str, str], path: Path) -> None:
    path.write_text(json.dumps(uids), encoding="utf-8")


def load(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found
