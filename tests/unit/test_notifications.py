"""What an example DAG does about a run that is late, as Airflow's triggerer calls it."""

from __future__ import annotations

import logging

from airflow.sdk import AsyncCallback
from airflow.triggers.callback import CallbackTrigger

from airflow_llmtune.notifications import log_missed_deadline


async def test_a_missed_deadline_is_logged_with_the_run_that_is_late(caplog):
    context = {"dag_run": {"dag_id": "retune_weekly", "dag_run_id": "scheduled__2026-11-22"}, "deadline": {}}
    callback = AsyncCallback(log_missed_deadline)
    trigger = CallbackTrigger(callback.path, {**(callback.kwargs or {}), "context": context})
    with caplog.at_level(logging.ERROR, log_missed_deadline.__module__):
        states = [str(event.payload["state"]) async for event in trigger.run()]
    assert states[-1] == "success"
    assert "DAG run scheduled__2026-11-22 of retune_weekly has missed its deadline" in caplog.text
