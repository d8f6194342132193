"""The validator's rules for ``spec.metricsCollectorSpec``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.collectors.filters import FilterError, compile_filter

Source = dict[str, Any]

_PATH = "spec.metricsCollectorSpec"
_KIND, _SOURCE = f"{_PATH}.collector.kind", f"{_PATH}.source"
_TWO_GROUPS = compile_filter(r"\(.*\).*\(.*\)")


def check_metrics_collector(collector_spec: dict[str, Any], errors: FieldErrors) -> None:
    collector, source = collector_spec["collector"], collector_spec.get("source", {})
    kind = collector.get("kind", "")
    check = _CHECKS.get(kind)
    if check is not None:
        check(source, errors)
    elif kind == "Custom":
        _check_custom(collector, source, errors)
    elif kind not in _WITHOUT_SOURCE:
        errors.invalid(_KIND, kind, f"invalid metrics collector kind: {kind}")
    if kind in _WITHOUT_SOURCE:
        return  # Not even a filter is looked at.
    for text in source.get("filter", {}).get("metricsFormat", ()):
        _check_filter(text, errors)


def _check_file(source: Source, errors: FieldErrors) -> None:
    file, path = source["fileSystemPath"], f"{_SOURCE}.fileSystemPath"
    if file["kind"] != "File" or not file["path"].startswith("/"):
        errors.required(f"{path}.path", "file path where metrics file exists is required")
    if file["format"] not in {"TEXT", "JSON"}:
        errors.required(f"{path}.format", "format of metrics file is required for metrics collector")
    if file["format"] == "JSON" and "filter" in source:
        errors.invalid(f"{_SOURCE}.filter", "", "filter must be nil when format of metrics file is json")


def _check_tensorflow_event(source: Source, errors: FieldErrors) -> None:
    folder = source["fileSystemPath"]
    if folder["kind"] != "Directory" or not folder["path"].startswith("/"):
        detail = (
            "directory path where tensorflow event files exist is required by "
            ".spec.metricsCollectorSpec.source.fileSystemPath.path"
        )
        errors.required(_SOURCE, detail)
    if "format" in folder:
        errors.invalid(f"{_SOURCE}.fileSystemPath.format", folder["format"], "must be empty")


def _check_prometheus(source: Source, errors: FieldErrors) -> None:
    # The stock katib-config has no image for it, so it is never accepted; the other mistakes are told as well.
    detail = "failed to find metrics collector config for kind: PrometheusMetric in ConfigMap: katib-config"
    errors.invalid(_KIND, "PrometheusMetric", f"GetMetricsCollectorConfigData failed: {detail}")
    port, path = str(source["httpGet"]["port"]), source["httpGet"]["path"]
    if not re.fullmatch(r"\+?\d{1,18}", port) or int(port) <= 0:
        detail = "must be a positive integer value for metrics collector kind: PrometheusMetric"
        errors.invalid(f"{_SOURCE}.httpGet.port", port, detail)
    if not path.startswith("/"):
        detail = "path is invalid for metrics collector kind: PrometheusMetric"
        errors.invalid(f"{_SOURCE}.httpGet.path", path, detail)


def _check_custom(collector: dict[str, Any], source: Source, errors: FieldErrors) -> None:
    if "customCollector" not in collector:
        errors.required(f"{_PATH}.collector.customCollector", "metrics collector kind: Custom is required")
    place = source.get("fileSystemPath")
    if place is not None and (
        not place.get("path", "").startswith("/") or place.get("kind") not in {"Directory", "File"}
    ):
        errors.invalid(f"{_SOURCE}.fileSystemPath", "", ".spec.metricsCollectorSpec.source is invalid")


def _check_filter(text: str, errors: FieldErrors) -> None:
    path = f"{_SOURCE}.filter.metricsFormat"
    try:
        compile_filter(text)
    except FilterError as error:
        errors.invalid(path, text, f"invalid filter: {error}")
        return
    # Brackets are counted by looking at the text, as upstream: escaped ones count too.
    if _TWO_GROUPS.search(text) is None:
        errors.invalid(path, text, "two top subexpressions are required")


_CHECKS: dict[str, Callable[[Source, FieldErrors], None]] = {
    "File": _check_file,
    "TensorFlowEvent": _check_tensorflow_event,
    "PrometheusMetric": _check_prometheus,
}
_WITHOUT_SOURCE = ("StdOut", "Push")
