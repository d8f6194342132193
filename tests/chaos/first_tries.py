"""Operators whose first try ends in a way that no wait of its own would bring about; here, as triggers are imported."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from airflow.sdk import Context, get_current_context

from airflow_llmtune.operators.katib import KatibExperimentOperator
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.triggers.base import WaitTrigger
from airflow_llmtune.triggers.katib import KatibExperimentTrigger

__all__ = ["OPERATORS", "FailingOperator", "FailingTrigger", "FailingTriggerOperator", "LostOperator", "breaker"]


class FailingOperator(KatibExperimentOperator):
    """Its first try fails as soon as the Experiment is created."""

    def wait(self, trigger: WaitTrigger) -> Outcome:
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the first try fails here")
        return super().wait(trigger)


class LostOperator(KatibExperimentOperator):
    """Its first try ends when it has read the result and done away with the Experiment, and Airflow has nothing yet."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        result = super().execute_complete(context, event)
        if context["ti"].try_number == 1:
            raise RuntimeError("the first try is lost here")
        return result


class FailingTrigger(KatibExperimentTrigger):
    """That of the first try raises what no trigger of ours does, when the harness says so."""

    async def wait(self, *, alone: bool = False) -> Outcome:
        if self.task_instance.try_number == 1:
            while not breaker(str(self.config_file), self.name).exists():
                await asyncio.sleep(0.2)
            raise RuntimeError("the first trigger fails here")
        return await super().wait(alone=alone)


class FailingTriggerOperator(KatibExperimentOperator):
    @property
    def trigger_class(self) -> type[WaitTrigger]:
        return FailingTrigger


def breaker(config_file: str, experiment: str) -> Path:
    """Return the file whose presence breaks the trigger of an Experiment; it lies where that can find it."""
    return Path(f"{config_file}.{experiment}.broken")


OPERATORS: dict[str, Any] = {
    "": KatibExperimentOperator,
    "fails": FailingOperator,
    "trigger fails": FailingTriggerOperator,
    "is lost at its end": LostOperator,
}
