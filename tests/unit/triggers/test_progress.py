"""When progress is written. Airflow's own XCom writes it, to a supervisor that only notes what it is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import task_runner, xcom

from airflow_llmtune.triggers import progress
from airflow_llmtune.triggers.progress import Publication
from supervisor import Supervisor, whose
from waiting import eventually

REST, PACE = 0.4, 0.02


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr(progress, "REST_SECONDS", REST)
    monkeypatch.setattr(progress, "PACE_SECONDS", PACE)
    return supervisor


def publication(state: dict[str, Any], task_id: str = "tune") -> Publication:
    ti = SimpleNamespace(dag_id="dag", task_id=task_id, run_id="run", map_index=-1)
    return Publication(ti, lambda: dict(state))


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def test_the_first_state_is_written_at_once_and_what_follows_together_after_a_rest(supervisor):
    state = {"done": 1}
    mine = publication(state)
    mine.changed()
    await eventually(lambda: supervisor.told)
    for done in (2, 3, 4):
        state["done"] = done
        mine.changed()
    await eventually(lambda: len(supervisor.told) == 2)
    assert supervisor.values == [{"done": 1}, {"done": 4}]
    assert supervisor.told[1][0] - supervisor.told[0][0] >= REST * 0.99


async def test_nothing_runs_while_nothing_has_changed(supervisor):
    mine = publication({})
    assert others() == set()
    mine.changed()
    assert [task.get_name() for task in others()] == ["progress"]
    await eventually(lambda: supervisor.told and not others())


async def test_all_waits_together_keep_the_pace_and_each_has_its_turn(supervisor):
    states = [{"done": 0} for _ in range(25)]
    waits = [publication(state, f"tune-{number}") for number, state in enumerate(states)]
    for state, wait in zip(states, waits, strict=True):
        wait.changed()
        state["done"] = 1
        wait.changed()
    await eventually(lambda: not others())
    assert [task_id for _, task_id, _ in supervisor.told] == [f"tune-{number}" for number in range(25)]
    assert supervisor.values == [{"done": 1}] * 25
    times = [at for at, _, _ in supervisor.told]
    assert times[-1] - times[0] >= PACE * 24 * 0.99


async def test_a_wait_that_rests_does_not_hold_up_another(supervisor, monkeypatch):
    monkeypatch.setattr(progress, "REST_SECONDS", 60.0)
    resting = publication({}, "resting")
    resting.changed()
    await eventually(lambda: supervisor.told)
    resting.changed()
    await asyncio.sleep(2 * PACE)
    publication({}, "new").changed()
    await eventually(lambda: len(supervisor.told) == 2)
    assert [task_id for _, task_id, _ in supervisor.told] == ["resting", "new"]
    # Nobody is left for whom the minute is worth waiting.
    resting.close()
    await eventually(lambda: not others())


async def test_what_a_wait_has_not_written_when_it_ends_is_never_written(supervisor):
    mine, other = publication({}, "mine"), publication({}, "other")
    mine.changed()
    other.changed()
    mine.close()
    mine.changed()
    await eventually(lambda: not others())
    assert [task_id for _, task_id, _ in supervisor.told] == ["other"]


async def test_a_failure_is_told_once_and_the_next_state_is_written(supervisor, caplog):
    supervisor.errors = [RuntimeError("the API is away"), RuntimeError("still away")]
    caplog.set_level(logging.DEBUG, logger=progress.__name__)
    state = {"done": 1}
    mine = publication(state)
    for done in (1, 2, 3):
        state["done"] = done
        mine.changed()
        await eventually(lambda: not others())
    assert supervisor.values == [{"done": 3}]
    assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
    assert "the API is away" in caplog.text


async def test_without_a_triggerer_nothing_is_written(supervisor):
    Publication(None, dict).changed()
    assert others() == set()


async def test_what_is_written_for_all_runs_in_nobodys_context(supervisor):
    whose.set("the first task's")
    publication({}).changed()
    await eventually(lambda: supervisor.told)
    assert supervisor.contexts == {"nobody's"}


async def test_a_backend_that_may_write_to_a_bucket_does_not_do_so_in_the_event_loop(supervisor, monkeypatch):
    class Bucket(BaseXCom):
        @staticmethod
        def serialize_value(value: Any, **_: Any) -> Any:
            return {"stored": value}

    monkeypatch.setattr(xcom, "XCom", Bucket)
    publication({"done": 1}).changed()
    await eventually(lambda: supervisor.told)
    assert supervisor.values == [{"stored": {"done": 1}}]
    assert threading.get_ident() not in supervisor.threads
