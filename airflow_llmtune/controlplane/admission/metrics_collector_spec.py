"""The validator's rules for ``spec.metricsCollectorSpec``. Pure."""

from __future__ import annotations

import re
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors

_PATH = "spec.metricsCollectorSpec"
_SERVED = ("StdOut", "File")
_KNOWN = (*_SERVED, "TensorFlowEvent", "PrometheusMetric", "Custom", "Push")
_GROUPS_NEEDED = 2


def check_metrics_collector(collector_spec: dict[str, Any], errors: FieldErrors) -> None:
    kind = collector_spec["collector"]["kind"]
    if kind not in _KNOWN:
        errors.invalid(f"{_PATH}.collector.kind", kind, f"invalid metrics collector kind: {kind}")
        return
    if kind not in _SERVED:
        # Katib's words for a kind without an image; here that is every kind not served yet.
        detail = f"failed to find metrics collector config for kind: {kind} in ConfigMap: katib-config"
        errors.invalid(f"{_PATH}.collector.kind", kind, detail)
        return
    source = collector_spec.get("source", {})
    if kind == "File":
        _check_file(source, errors)
    for index, text in enumerate(source.get("filter", {}).get("metricsFormat", ())):
        _check_filter(f"{_PATH}.source.filter.metricsFormat[{index}]", text, errors)


def _check_file(source: dict[str, Any], errors: FieldErrors) -> None:
    file, path = source["fileSystemPath"], f"{_PATH}.source.fileSystemPath"
    if file["kind"] != "File":
        errors.invalid(f"{path}.kind", file["kind"], "fileSystemPath.kind must be File")
    if not file["path"].startswith("/"):
        errors.invalid(f"{path}.path", file["path"], "file path must be an absolute path")
    if file["format"] not in {"TEXT", "JSON"}:
        errors.invalid(f"{path}.format", file["format"], "format must be TEXT or JSON")
    if file["format"] == "JSON" and "filter" in source:
        errors.invalid(f"{_PATH}.source.filter", "", "filter must be nil when format of fileSystemPath is JSON")


def _check_filter(path: str, text: str, errors: FieldErrors) -> None:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        errors.invalid(path, text, f"invalid filter: {error}")
        return
    if groups < _GROUPS_NEEDED:
        errors.invalid(path, text, "two top subexpressions are required")
