"""A sweep on a real Airflow: run as a script it leaves three Jobs, sweeps twice, and prints what each sweep told."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG, task
from airflow.sdk.exceptions import TaskDeferred

from airflow_llmtune.operators.sweep import SweepOrphansOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator
from tests.support.trainer_image import STAND_IN

# What a claim on an object is made of.
PARTS = ("id", "dag_id", "map_index", "try_number", "max_tries", "start_date")


def start_job(task_id: str, run_id: str, context: Any) -> None:
    ti = SimpleNamespace(task_id=task_id, run_id=run_id, **{part: getattr(context["ti"], part) for part in PARTS})
    settings = {"model": "/models/tiny", "dataset": "/data", "image": STAND_IN, "trainer_args": {"nap": 300}}
    training = FineTuneLLMOperator(task_id=task_id, output_uri="/models/out", **settings)
    with suppress(TaskDeferred):
        training.execute({**context, "ti": ti})


with DAG("orphans", schedule=None) as dag:

    @task
    def leave(**context: Any) -> None:
        """Ends well, and so does not come back for its Job; others are the next task's, and of a run that is gone."""
        for task_id, run_id in (("leave", context["run_id"]), ("sweep", context["run_id"]), ("leave", "gone")):
            start_job(task_id, run_id, context)

    leave() >> SweepOrphansOperator(task_id="sweep")


def main() -> None:
    import sweep_orphans
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    told = []
    for swept in (dag, sweep_orphans.dag):
        run = swept.test(logical_date=datetime(2026, 11, 1, tzinfo=UTC))
        with create_session() as session:
            xcoms = session.query(XComModel).filter_by(run_id=run.run_id, dag_id=swept.dag_id, task_id="sweep").all()
            told.append({item.key: item.value for item in xcoms})
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()
