"""What OpenLineage's own extractor makes of our operators."""

from __future__ import annotations

from typing import Any

from airflow.providers.openlineage.extractors.base import DefaultExtractor
from openlineage.client.serde import Serde

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import EvaluateLLMOperator, FineTuneLLMOperator

MODEL, DATA = "org/base", "s3://bucket/rows"
MANIFEST = {"base_model_revision": "1111", "dataset_version": None, "parameters": {"lora_r": 8}}


def extract(operator: Any, result: dict[str, Any] | None) -> dict[str, Any]:
    operator._result = result
    lineage = DefaultExtractor(operator).extract_on_complete(task_instance=None)
    return Serde.to_dict(lineage) if lineage is not None else {}


def datasets(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["namespace"], item["name"]) for item in found]


def test_a_training_reads_model_and_data_and_writes_the_adapter():
    operator = FineTuneLLMOperator(task_id="train", model=MODEL, dataset=DATA, output_uri="s3://bucket/adapter")
    result = {
        "job": "train-1",
        "namespace": "team",
        "metrics": {"eval_loss": 2.5},
        "artifact_uri": "s3://bucket/adapter",
        "manifest": MANIFEST,
    }
    told = extract(operator, result)
    assert datasets(told["inputs"]) == [("https://huggingface.co", "org/base"), ("s3://bucket", "rows")]
    assert told["inputs"][0]["facets"]["version"]["datasetVersion"] == "1111"
    assert datasets(told["outputs"]) == [("s3://bucket", "adapter")]
    facets = told["run_facets"]
    assert [(item["key"], item["value"]) for item in facets["executionParameters"]["parameters"]] == [("lora_r", "8")]
    assert {item["key"]: item["value"] for item in facets["tags"]["tags"]} == {
        "job": "train-1",
        "namespace": "team",
        "metrics.eval_loss": "2.5",
    }


def test_a_tuning_tells_its_best_trial():
    operator = KatibTuneLLMOperator(task_id="tune", model=MODEL, dataset=DATA, parameters={})
    result = {"experiment": "exp", "trial": "exp-1", "parameters": {"lora_r": 4}, "metrics": {}, "artifact_uri": None}
    told = extract(operator, result)
    assert told["outputs"] == []
    assert {item["key"]: item["value"] for item in told["run_facets"]["tags"]["tags"]} == {
        "experiment": "exp",
        "trial": "exp-1",
    }


def test_an_evaluation_reads_the_adapter_and_writes_nothing():
    operator = EvaluateLLMOperator(task_id="judge", model=MODEL, dataset=DATA, adapter="/models/old")
    told = extract(operator, {"metrics": {}, "artifact_uri": "/models/old", "manifest": MANIFEST})
    assert ("file", "/models/old") in datasets(told["inputs"])
    assert told["outputs"] == []


def test_a_task_without_a_result_tells_nothing():
    assert extract(KatibTuneLLMOperator(task_id="tune", model=MODEL, dataset=DATA, parameters={}), None) == {}
