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
    record = rollback_record.new_record(KIND, PREVIEW, OBJ, "me", "now")
    assert record["metadata"]["name"] == "inferenceservice-chat-rollback"
    assert record["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert rollback_record.previous_manifest(record) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "namespace": "ml", "labels": {"team": "nlp"}, "annotations": {"a": "b"}},
        "spec": {"predictor": {"minReplicas": 1}},
    }


def test_before_the_first_deployment_there_was_nothing():
    record = rollback_record.new_record(KIND, PREVIEW, None, "me", "now")
    assert rollback_record.previous_manifest(record) is None
    assert "ownerReferences" not in record["metadata"]


def test_a_record_knows_its_owner_and_what_that_one_applied():
    record = rollback_record.new_record(KIND, PREVIEW, OBJ, "me", "now")
    assert rollback_record.belongs_to(record, "me")
    assert not rollback_record.belongs_to(record, "another")
    assert rollback_record.wrote(record, PREVIEW)
    assert not rollback_record.wrote(record, OBJ)
    assert not rollback_record.wrote(record, None)
    assert not rollback_record.wrote(None, OBJ)


def taken_over(preview: dict[str, Any], epoch: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record as it was, and as the next try makes it."""
    record = rollback_record.new_record(KIND, PREVIEW, OBJ, "me", "now")
    record["metadata"]["annotations"]["airflow-llmtune/since"] = "2026-01-01T00:00:00+00:00"
    marks = rollback_record.taken_over(record, preview, PREVIEW, "next", epoch)
    return record, {**record, "metadata": {"annotations": marks}}


def test_a_try_that_takes_a_record_over_still_knows_what_is_half_done():
    other = {**OBJ, "spec": {"predictor": {"minReplicas": 3}}}
    _, record = taken_over(other, "now")
    assert rollback_record.belongs_to(record, "next")
    # A worker may be lost before the other one is applied.
    assert rollback_record.wrote(record, PREVIEW)
    assert rollback_record.wrote(record, other)
    assert not rollback_record.wrote(record, OBJ)


@pytest.mark.parametrize(
    ("preview", "epoch", "goes_on"),
    [(PREVIEW, "now", True), (PREVIEW, "next week", False), (OBJ, "now", False)],
    ids=["retry", "another run", "another manifest"],
)
def test_a_retry_goes_on_waiting_and_anything_else_begins_anew(preview, epoch, goes_on):
    before, record = taken_over(preview, epoch)
    assert (rollback_record.began(record) == rollback_record.began(before)) == goes_on


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
