"""Preflight of an InferenceService that the author wrote, and what its status says."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import inference_service, llm_inference_service
from airflow_llmtune.resources.inference_service import DEPLOYMENT_MODE, check_manifest
from airflow_llmtune.resources.problems import Problems

MANIFEST: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "chat"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "huggingface"}}}},
}


def found(**changes: Any) -> list[str]:
    problems = Problems()
    check_manifest({**MANIFEST, **changes}, problems)
    return [str(error) for error in problems.errors]


def test_a_whole_manifest_is_sound():
    assert found() == []
    assert found(metadata={"name": "chat", "annotations": {DEPLOYMENT_MODE: "RawDeployment"}}) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spec": None}, "has no predictor"),
        ({"metadata": {"name": "a", "annotations": {DEPLOYMENT_MODE: []}}}, "is no pair of texts"),
        ({"metadata": {"name": "a", "namespace": "A B"}}, "is not a namespace's name"),
        ({"spec": {"predictor": []}}, "has no predictor"),
        ({"kind": "Service"}, "is not InferenceService"),
        ({"metadata": {}}, "`metadata.name`=None is missing"),
        ({"metadata": {"name": "X"}}, "is not a name of at most"),
        ({"metadata": {"name": "chat", "annotations": {DEPLOYMENT_MODE: "Raw"}}}, "is not known"),
    ],
)
def test_a_mistake_is_told(changes, told):
    (message,) = found(**changes)
    assert told in message


@pytest.mark.parametrize(
    ("obj", "mode"),
    [
        ({"status": {"deploymentMode": "Serverless"}}, "Knative"),
        ({"metadata": {"annotations": {DEPLOYMENT_MODE: "RawDeployment"}}}, "Standard"),
        ({"metadata": {}}, None),
        (None, None),
    ],
)
def test_modes_have_an_old_and_a_new_name(obj, mode):
    assert inference_service.deployment_mode(obj) == mode


def test_the_urls_are_those_of_the_status():
    status = {"url": "http://out", "address": {"url": "http://in"}}
    assert inference_service.read_url({"status": status}) == ("http://out", "http://in")
    assert inference_service.read_url({}) == (None, None)
    addresses = {"addresses": [{"url": "http://gateway"}]}
    assert llm_inference_service.read_url({"status": addresses}) == ("http://gateway", None)
