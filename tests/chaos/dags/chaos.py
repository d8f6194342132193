"""One Experiment and a task downstream that is given its result. Each run pauses where its ``phase`` says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from airflow_llmtune.operators.katib import KatibExperimentOperator
from objects import shell_job, tuning_experiment
from tests.chaos.gates import Gates, trial_script

# Airflow counts a try also when its worker could not reach the api-server: enough for a minute without one.
RETRIES: dict[str, Any] = {"retries": 10, "retry_delay": timedelta(seconds=2)}


def _gates() -> Gates:
    context: Any = get_current_context()
    conf = context["dag_run"].conf
    return Gates(Path(conf["folder"]), conf["phase"])


class GatedExperimentOperator(KatibExperimentOperator):
    """The real one, with pauses."""

    def execute(self, context: Any) -> Any:
        _hold("before create")
        return super().execute(context)

    def wait(self, trigger: Any) -> Any:
        _hold("between create and defer")
        return super().wait(trigger)

    async def read_result(self, client: Any, obj: Any) -> Any:
        result = await super().read_result(client, obj)
        _hold("while completing")
        return result


def _hold(phase: str) -> None:
    _gates().hold(phase)


with DAG("chaos", schedule=None) as dag:

    @task(**RETRIES)
    def collect(result: dict[str, Any]) -> str:
        _gates().deliver(result)
        return str(result["experiment"])

    trial = shell_job(trial_script("{{ dag_run.conf['folder'] }}"))
    experiment = tuning_experiment("tuning", trial, maxTrialCount=2, parallelTrialCount=1)
    tune = GatedExperimentOperator(task_id="tune", experiment=experiment, **RETRIES)
    collect(tune.output)
