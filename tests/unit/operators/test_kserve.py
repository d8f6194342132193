"""What a deployment task checks before it talks to the cluster, and what it hands to its trigger."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.module_loading import import_string
from airflow.sdk.serde import deserialize, serialize
from airflow.serialization.serialized_objects import DagSerialization

from airflow_llmtune.operators.kserve import CanaryTrafficOperator, DeployLLMOperator, InferenceServiceOperator
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.triggers.kserve import InferenceServiceTrigger, LLMInferenceServiceTrigger
from task_run import Run

GUIDE = Path(__file__).parent.parent.parent.parent / "docs/how-to/deploy.md"


def deploy(**changes: Any) -> DeployLLMOperator:
    return DeployLLMOperator(**{"task_id": "deploy", "name": "chat", "model": "org/base", **changes})


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        (deploy(on_failure="retry"), "`on_failure`='retry' is not known"),
        (deploy(on_kill_action="delete"), "`on_kill_action`='delete' is not known"),
        (deploy(timeout=5), "`timeout`=5 is no timedelta"),
        (deploy(start_timeout=5), "`start_timeout`=5 is no timedelta"),
        (deploy(smoke_test={"ask": 1}), "`smoke_test.ask`=1 is not known"),
        (deploy(canary_traffic_percent=101), "`canary_traffic_percent`=101 is more than 100"),
        (deploy(canary_traffic_percent=-1), "`canary_traffic_percent`=-1 is less than 0"),
        (deploy(kind="LLMInferenceService", canary_traffic_percent=5), "is nothing that an LLMInferenceService has"),
        (CanaryTrafficOperator(task_id="shift", name="chat", percent="half"), "`percent`='half' is not a whole number"),
        (CanaryTrafficOperator(task_id="shift", name="", percent=5), "`name`='' is not a name"),
        (InferenceServiceOperator(task_id="any", inference_service="{}"), "has no predictor"),
        (InferenceServiceOperator(task_id="any", inference_service=3), "`inference_service`=3 is no manifest"),
        (InferenceServiceOperator(task_id="any", inference_service="gone.yaml"), "names a file that does not exist"),
    ],
)
def test_a_mistake_fails_the_task_before_it_asks_the_cluster(operator: Any, told: str) -> None:
    with pytest.raises(AirflowFailException) as failed:
        operator.execute(Run().new_try())
    assert told in str(failed.value)


def test_a_missing_adapter_is_no_deployment_without_one() -> None:
    operator = deploy(adapter="{{ ti.xcom_pull('train')['artifact_uri'] }}")
    operator.adapter = None  # as Airflow renders an XCom that is not there
    with pytest.raises(AirflowFailException, match="`adapter`=None was given and has no value now"):
        operator.execute(Run().new_try())


def test_a_namespace_that_the_manifest_contradicts_is_told() -> None:
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "models"},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "huggingface"}}}},
    }
    operator = InferenceServiceOperator(task_id="any", inference_service=manifest, namespace="other")
    with pytest.raises(AirflowFailException, match="is not the manifest's own, 'models'"):
        operator.execute(Run().new_try())


@pytest.mark.parametrize("trigger_class", [InferenceServiceTrigger, LLMInferenceServiceTrigger])
def test_a_trigger_survives_the_database(trigger_class: Any) -> None:
    trigger = trigger_class(
        name="chat",
        namespace="ml",
        uid="u",
        revisions=["r"],
        started=1.5,
        start_timeout=600.0,
        traffic=10,
        had_failed=True,
        kubernetes_conn_id="k",
        deadline=9.5,
        on_kill_action="keep",
    )
    path, kwargs = trigger.serialize()
    again = import_string(path)(**deserialize(serialize(kwargs)))
    assert type(again) is trigger_class
    assert again.serialize() == (path, kwargs)
    assert (again.revisions, again.traffic, again.deadline, again.on_kill_action) == (["r"], 10, 9.5, "keep")


def test_the_kind_of_object_follows_from_what_was_rendered() -> None:
    operator = deploy(kind="{{ params.kind }}")
    operator.kind = "LLMInferenceService"
    assert operator.trigger_class is LLMInferenceServiceTrigger
    assert deploy().resource_kind.kind == "InferenceService"


def test_the_link_leads_to_the_model_once_it_serves() -> None:
    (link,) = DeployLLMOperator.operator_extra_links
    operator = deploy()
    assert link.get_link(operator, ti_key=None) == ""
    operator.endpoint_url = "http://models/chat"
    assert link.get_link(operator, ti_key=None) == "http://models/chat"


def test_deployments_can_be_mapped_and_stored_by_airflow() -> None:
    with DAG("dag", schedule=None) as dag:
        DeployLLMOperator.partial(task_id="deploy", model="org/base").expand(name=["a", "b"])
        CanaryTrafficOperator(task_id="shift", name="a", percent=50, timeout=timedelta(minutes=5))
    stored = DagSerialization.to_dict(dag)["dag"]["tasks"]
    assert sorted(task["__var"]["task_id"] for task in stored) == ["deploy", "shift"]


def test_the_guide_shows_tasks_that_are_sound() -> None:
    earlier = {"artifact_uri": "s3://models/adapter", "manifest": {"parameters": {"lora_r": 32}}}
    scope: dict[str, Any] = {name: SimpleNamespace(output=earlier) for name in ("tune", "fine_tune")}
    scope["CanaryTrafficOperator"] = CanaryTrafficOperator
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
        exec(compile(block, "deploy.md", "exec"), scope)
    for name in ("deploy", "try_it", "more", "all_of_it"):
        problems = Problems()
        scope[name].build_manifest(problems)
        assert problems.errors == []
