"""An LLMInferenceService of KServe: what its status says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path

__all__ = ["ALL_PODS", "CONTAINER", "KIND", "OWNER_LABEL", "pod_selector", "read_url"]

KIND = ResourceKind("serving.kserve.io", "v1alpha2", "LLMInferenceService", "llminferenceservices", strict=True)
CONTAINER = "main"
OWNER_LABEL = "app.kubernetes.io/name"
ALL_PODS = "app.kubernetes.io/part-of=llminferenceservice"


def pod_selector(name: str) -> str:
    """Select the Deployments and pods of one LLMInferenceService."""
    return f"{OWNER_LABEL}={name},{ALL_PODS}"


def read_url(obj: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The URL from outside of the cluster, and the one from inside."""
    addresses = [entry.get("url") for entry in path(obj, "status", "addresses") or []]
    url = path(obj, "status", "url") or next(iter(addresses), None)
    return url, path(obj, "status", "address", "url")
