"""An LLMInferenceService of KServe: what its status says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path

__all__ = ["CONTAINER", "KIND", "pod_selector", "read_url"]

KIND = ResourceKind("serving.kserve.io", "v1alpha2", "LLMInferenceService", "llminferenceservices", strict=True)
CONTAINER = "main"


def pod_selector(name: str) -> str:
    """Select the Deployments and pods of one LLMInferenceService."""
    return f"app.kubernetes.io/name={name},app.kubernetes.io/part-of=llminferenceservice"


def read_url(obj: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The URL from outside of the cluster, and the one from inside."""
    addresses = [entry.get("url") for entry in path(obj, "status", "addresses") or []]
    url = path(obj, "status", "url") or next(iter(addresses), None)
    return url, path(obj, "status", "address", "url")
