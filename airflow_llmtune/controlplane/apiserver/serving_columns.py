"""What ``kubectl get`` prints of KServe's kinds: the columns that their definitions declare."""

from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.columns import Column
from airflow_llmtune.controlplane.apiserver.printer_columns import printer_columns

_READY = ".status.conditions[?(@.type=='Ready')]"
_TRAFFIC = ".status.components.predictor.traffic"
_PREVIOUS = f"{_TRAFFIC}[?(@.tag=='prev')]"
# A truth value reads as Python writes it.
_LATEST = f"{_TRAFFIC}[?(@.latestRevision=='True')]"


def _columns(*declared: tuple[str, str, str]) -> tuple[Column, ...]:
    return printer_columns([{"name": name, "type": type_, "jsonPath": path} for name, type_, path in declared])


_AGE = ("Age", "date", ".metadata.creationTimestamp")

INFERENCE_SERVICE_COLUMNS = _columns(
    ("URL", "string", ".status.url"),
    ("Ready", "string", f"{_READY}.status"),
    ("Prev", "integer", f"{_PREVIOUS}.percent"),
    ("Latest", "integer", f"{_LATEST}.percent"),
    ("PrevRolledoutRevision", "string", f"{_PREVIOUS}.revisionName"),
    ("LatestReadyRevision", "string", f"{_LATEST}.revisionName"),
    _AGE,
)
RUNTIME_COLUMNS = _columns(
    ("Disabled", "boolean", ".spec.disabled"),
    ("ModelType", "string", ".spec.supportedModelFormats[*].name"),
    ("Containers", "string", ".spec.containers[*].name"),
    _AGE,
)
LLM_INFERENCE_SERVICE_COLUMNS = _columns(
    ("URL", "string", ".status.url"),
    ("Ready", "string", f"{_READY}.status"),
    ("Reason", "string", f"{_READY}.reason"),
    _AGE,
)
