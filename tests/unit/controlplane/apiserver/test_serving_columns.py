"""What ``kubectl get`` shows of KServe's kinds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from airflow_llmtune.controlplane.apiserver.columns import Column
from airflow_llmtune.controlplane.apiserver.serving_columns import (
    INFERENCE_SERVICE_COLUMNS,
    LLM_INFERENCE_SERVICE_COLUMNS,
    RUNTIME_COLUMNS,
)
from objects import Object

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
METADATA = {"name": "chat", "creationTimestamp": "2026-11-22T09:59:00Z"}
READY = {"type": "Ready", "status": "True", "reason": "Fine"}


def shown(columns: Sequence[Column], obj: Object) -> Object:
    return {one.name: one.read({"metadata": METADATA, **obj}, NOW) for one in columns}


def test_an_inference_service_shows_its_split() -> None:
    traffic = [
        {"latestRevision": True, "percent": 10, "revisionName": "r2"},
        {"latestRevision": False, "percent": 90, "revisionName": "r1", "tag": "prev"},
    ]
    status = {"url": "http://x", "conditions": [READY], "components": {"predictor": {"traffic": traffic}}}
    assert shown(INFERENCE_SERVICE_COLUMNS, {"status": status}) == {
        "Name": "chat",
        "URL": "http://x",
        "Ready": "True",
        "Prev": 90,
        "Latest": 10,
        "PrevRolledoutRevision": "r1",
        "LatestReadyRevision": "r2",
        "Age": "60s",
    }


def test_runtimes_and_llm_services() -> None:
    spec = {"supportedModelFormats": [{"name": "vLLM"}], "containers": [{"name": "kserve-container"}]}
    assert shown(RUNTIME_COLUMNS, {"spec": spec}) == {
        "Name": "chat",
        "Disabled": None,
        "ModelType": "vLLM",
        "Containers": "kserve-container",
        "Age": "60s",
    }
    assert shown(LLM_INFERENCE_SERVICE_COLUMNS, {"status": {"conditions": [READY]}}) == {
        "Name": "chat",
        "URL": None,
        "Ready": "True",
        "Reason": "Fine",
        "Age": "60s",
    }
