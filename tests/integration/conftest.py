"""A control plane per test module, and a runner that takes an operator through defer, trigger and resume."""

from __future__ import annotations

import asyncio
import copy
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks.kubeflow import KubeflowClient, KubeflowHook
from program import Program

# An image whose `python` is this script: it knows the trainer's flags and answers in the trainer's form, in
# milliseconds. The loss is lowest at a learning rate of 1e-3; the real trainer runs in tests/system and tests/trainer.
TRAINER = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --learning_rate=*) rate="${word#*=}";;
    --output_dir=*) out="${word#*=}";;
    --crash=true) crash=yes;;
    --diverge=true) diverge=yes;;
    --nap=*) sleep "${word#*=}";;
  esac
done
if [ -n "$crash" ]; then
  printf '{"schema_version":1,"status":"failed","error":"the model lies nowhere"}' > "$LLMTUNE_TERMINATION_LOG"
  echo "Traceback: boom"; exit 1
fi
if [ -n "$diverge" ]; then echo "2026-11-22T09:00:00.000000Z eval_loss=1000000000.0"; exit 0; fi
loss=$(awk -v rate="${rate:-0.001}" 'BEGIN { d = log(rate) / log(10) + 3; printf "%.6f", 1 + d * d }')
echo "2026-11-22T09:00:00.000000Z eval_loss=$loss"
result='{"schema_version":1,"status":"succeeded","metrics":{"eval_loss":%s},"artifact_uri":"%s"}'
printf "$result" "$loss" "$out" > "$LLMTUNE_TERMINATION_LOG"
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A control plane in a process of its own, which the test may kill."""
    running = Program(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="session")
def trainer_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("image")
    (prefix / "bin").mkdir()
    for name in ("python", "torchrun"):
        script = prefix / "bin" / name
        script.write_text(TRAINER)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return prefix


@pytest.fixture(scope="module")
def plane(trainer_image: Path) -> Iterator[ControlPlane]:
    with ControlPlane(images={"airflow-llmtune/trainer": trainer_image, "busybox": Path("/usr")}) as plane:
        yield plane


@pytest.fixture
def kubeconfig(plane: ControlPlane, tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig.yaml"
    plane.write_kubeconfig(path)
    return str(path)


@pytest.fixture
def ask(kubeconfig: str) -> Callable[[Callable[[KubeflowClient], Any]], Any]:
    """Run one question, a coroutine over a client, against the control plane."""

    def run(question: Callable[[KubeflowClient], Any]) -> Any:
        async def connected() -> Any:
            async with KubeflowHook(None, config_file=kubeconfig, api_retry_timeout=5).connect() as client:
                return await question(client)

        return asyncio.run(connected())

    return run


@dataclass
class Run:
    """One task instance, over all its tries."""

    run_id: str = field(default_factory=lambda: f"manual__{uuid.uuid4().hex[:8]}")
    map_index: int = -1
    try_number: int = 0
    max_tries: int = 1
    deferrals: int = 0
    run_after: datetime = field(default_factory=lambda: datetime.now(UTC))
    clear_number: int = 0
    ti_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def clear(self) -> None:
        """Move the numbers as Airflow does when a human clears the task."""
        self.clear_number += 1
        self.max_tries = self.try_number + 1

    def new_try(self) -> dict[str, Any]:
        """Return the context of the next try: with an id of its own, as Airflow gives it."""
        self.try_number += 1
        self.ti_id = uuid.uuid4()
        return self.context()

    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            id=self.ti_id,
            dag_id="dag",
            task_id="task",
            run_id=self.run_id,
            map_index=self.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            start_date=datetime.now(UTC),
        )
        dag_run = SimpleNamespace(run_after=self.run_after, clear_number=self.clear_number)
        return {"ti": ti, "dag_run": dag_run, "run_id": self.run_id}

    def defer(self, operator: Any) -> Any:
        """Start a try and return the trigger that it waits with."""
        with pytest.raises(TaskDeferred) as deferred:
            _rendered(operator, context := self.new_try()).execute(context)
        return deferred.value.trigger

    def complete(self, operator: Any) -> Any:
        """Take a new try to its end as Airflow does.

        Arguments are rendered; the trigger crosses the database in its stored form; the resumed task is a fresh
        instance with a context of its own.
        """
        context = self.new_try()
        try:
            return _rendered(operator, context).execute(context)
        except TaskDeferred as deferred:
            self.deferrals += 1
            path, kwargs = deferred.trigger.serialize()
            event = asyncio.run(_first_event(import_string(path)(**deserialize(serialize(kwargs)))))
            context = self.context()
            return getattr(_rendered(operator, context), deferred.method_name)(context, event=event)


def _rendered(operator: Any, context: dict[str, Any]) -> Any:
    fresh = copy.deepcopy(operator)
    fresh.resolve_template_files()
    fresh.render_template_fields(context)
    return fresh


async def _first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return deserialize(serialize(event.payload))
    raise AssertionError("the trigger ended without an event")


@pytest.fixture
def run() -> Run:
    return Run()
