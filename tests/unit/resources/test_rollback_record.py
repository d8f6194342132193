"""What is kept of the version before."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import rollback_record
from airflow_llmtune.resources.inference_service import KIND

OBJ: dict[str, Any] = {
    "metadata": {
        "name": "chat",
        "namespace": "ml",
        "uid": "u",
        "generation": 4,
        "labels": {"team": "nlp"},
        "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {"predictor": {"minReplicas": 1}},
    "status": {"url": "http://x"},
}
PREVIEW = {**OBJ, "spec": {"predictor": {"minReplicas": 2}}}


def test_the_version_before_is_kept_without_what_the_cluster_writes():
    record = rollback_record.new_record(KIND, PREVIEW, OBJ, "me")
    assert record["metadata"]["name"] == "inferenceservice-chat-rollback"
    assert record["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert rollback_record.previous_manifest(record) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "ml", "labels": {"team": "nlp"}, "annotations": {"a": "b"}},
        "spec": {"predictor": {"minReplicas": 1}},
    }


def test_before_the_first_deployment_there_was_nothing():
    record = rollback_record.new_record(KIND, PREVIEW, None, "me")
    assert rollback_record.previous_manifest(record) is None
    assert "ownerReferences" not in record["metadata"]


def test_a_record_knows_its_owner_and_what_that_one_applied():
    record = rollback_record.new_record(KIND, PREVIEW, OBJ, "me")
    assert rollback_record.belongs_to(record, "me")
    assert not rollback_record.belongs_to(record, "another")
    assert rollback_record.wrote(record, PREVIEW)
    assert not rollback_record.wrote(record, OBJ)
    assert not rollback_record.wrote(record, None)
    assert not rollback_record.wrote(None, OBJ)


@pytest.mark.parametrize(
    ("found", "wanted", "patch"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_the_rest_of_a_rollback_is_the_difference(found, wanted, patch):
    assert rollback_record.difference(found, wanted) == patch
