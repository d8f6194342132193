"""A task instance without Airflow's own processes: an operator goes through defer, trigger and resume."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize
from uuid6 import uuid7


class StateStore:
    """What Airflow keeps for a task instance over its tries: JSON."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept

    def get(self, key: str, default: Any = None) -> Any:
        return self._kept.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._kept[key] = json.loads(json.dumps(value, allow_nan=False))


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
    ti_id: uuid.UUID = field(default_factory=uuid7)
    xcoms: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    start_date: datetime | None = None

    def clear(self) -> None:
        """Move the numbers as Airflow does when a human clears the task."""
        self.clear_number += 1
        self.max_tries = self.try_number + 1

    def new_try(self) -> dict[str, Any]:
        """Return the context of the next try: with an id of its own, as Airflow gives it."""
        self.try_number += 1
        self.ti_id = uuid7()
        self.start_date = datetime.now(UTC)
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
            start_date=self.start_date,
            xcom_push=lambda key, value: self.xcoms.update({key: json.loads(json.dumps(value, allow_nan=False))}),
        )
        dag_run = SimpleNamespace(run_after=self.run_after, clear_number=self.clear_number)
        return {"ti": ti, "dag_run": dag_run, "run_id": self.run_id, "task_state_store": StateStore(self.memory)}

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


async def defer(run: Run, operator: Any) -> Any:
    """Start a try; return its trigger, whose log the fixture ``log`` reads."""
    trigger = await asyncio.to_thread(run.defer, operator)
    # Airflow's own loggers print.
    trigger._log = logging.getLogger("airflow_llmtune.triggers")
    return trigger


def _rendered(operator: Any, context: dict[str, Any]) -> Any:
    fresh = copy.deepcopy(operator)
    fresh.resolve_template_files()
    fresh.render_template_fields(context)
    return fresh


async def _first_event(trigger: Any) -> Any:
    async for event in trigger.run():
        return deserialize(serialize(event.payload))
    raise AssertionError("the trigger ended without an event")
