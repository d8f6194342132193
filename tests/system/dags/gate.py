"""A gate on a real Airflow: run as a script it runs the DAG once per loss given, and prints what became of each run."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, task

from airflow_llmtune.exceptions import LLMTuneError
from airflow_llmtune.operators.model_asset import ModelState, suppress_events
from airflow_llmtune.operators.promotion import CompareModelOperator, GetChampionOperator, PromoteModelOperator

MODEL, OTHER, SILENT, UNKNOWN = Asset("gated-model"), Asset("other-model"), Asset("silent"), Asset("unknown")


class SilentOperator(BaseOperator):
    """Succeeds as a task that found nothing changed: without an event of its outlet."""

    def execute(self, context: Any) -> None:
        suppress_events(self)


class ForgetfulOperator(BaseOperator):
    """Would keep something on an asset that no task of any DAG names."""

    def execute(self, context: Any) -> str:
        try:
            ModelState(context, UNKNOWN).check()
        except LLMTuneError as error:
            return str(error)
        return "kept"


with DAG("gate", schedule=None, params={"loss": 0.0}) as dag:
    champion = GetChampionOperator(task_id="champion", model_asset=MODEL)

    @task
    def train(params: dict[str, Any], run_id: str) -> dict[str, Any]:
        evaluation = {"fingerprint": "aaaa", "rows": 4}
        manifest = {"base_model": "org/base", "dataset": "/data", "parameters": {"lora_r": 8}, "evaluation": evaluation}
        return {"metrics": {"eval_loss": params["loss"]}, "artifact_uri": f"/models/{run_id}", "manifest": manifest}

    @task
    def tell(before: str | None, address: str, metrics: dict[str, float]) -> dict[str, Any]:
        return {"before": before, "address": address, "metrics": metrics}

    compare = CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=train())
    deploy = tell.override(task_id="deploy")(
        champion.output["artifact_uri"], compare.output["artifact_uri"], compare.output["metrics"]
    )
    promote = PromoteModelOperator(task_id="promote", model_asset=MODEL, candidate=compare.output)
    champion >> compare
    deploy >> promote
    SilentOperator(task_id="silent", outlets=[SILENT])
    ForgetfulOperator(task_id="forgetful")
    each = GetChampionOperator.partial(task_id="each", inlets=[OTHER]).expand(model_asset=[MODEL, OTHER])


def main() -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    told = []
    for number, loss in enumerate(sys.argv[1:]):
        run = dag.test(logical_date=datetime(2026, 11, 1 + number, tzinfo=UTC), run_conf={"loss": float(loss)})
        with create_session() as session:
            xcoms = session.query(XComModel).filter(XComModel.run_id == run.run_id).all()
            events = session.query(AssetModel.name, AssetEvent.extra).join(AssetEvent.asset)
            events = events.filter(AssetEvent.source_run_id == run.run_id).all()
            told.append(
                {
                    "run_id": run.run_id,
                    "states": {instance.task_id: instance.state for instance in run.get_task_instances()},
                    "xcoms": {f"{item.task_id}.{item.key}.{item.map_index}": item.value for item in xcoms},
                    "events": [list(event) for event in events],
                }
            )
    print(json.dumps(told, default=str))  # noqa: T201


if __name__ == "__main__":
    main()
