"""Manifests as DAG authors hand them over: dict, YAML or JSON text, or a model object of a Kubeflow SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from airflow_llmtune.resources.meta import Problems, metadata

__all__ = ["read_manifest", "with_metadata"]

JSON = dict[str, Any]


def read_manifest(argument: str, value: Any, problems: Problems) -> JSON | None:
    """Return the manifest as a plain dict, or None after having noted why it is none."""
    if isinstance(value, str):
        value = _parse(argument, value, problems)
        if value is None:
            return None
    elif not isinstance(value, Mapping):
        value = _from_model(value)
    if not isinstance(value, Mapping):
        problems.add(argument, value, "is no manifest", "give a dict, YAML or JSON text, a file, or a model object")
        return None
    return dict(value)


def with_metadata(
    manifest: JSON, name: str, namespace: str, labels: dict[str, str], annotations: dict[str, str]
) -> JSON:
    """Add the operator's name, labels and annotations to those that the author gave."""
    given = manifest.get("metadata") or {}
    ours = metadata(
        name,
        namespace,
        {**(given.get("labels") or {}), **labels},
        {**(given.get("annotations") or {}), **annotations},
    )
    return {**manifest, "metadata": {**given, **ours}}


def _parse(argument: str, text: str, problems: Problems) -> Any:
    if text.endswith((".yaml", ".yml", ".json")) and "\n" not in text:
        # Airflow has replaced the path by the file's text if it found the file, and only logs it if not.
        problems.add(argument, text, "names a file that does not exist", "give a path relative to the DAG's folder")
        return None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problems.add(argument, text[:80], f"is neither YAML nor JSON: {error}", "mend the text at that line")
        return None


def _from_model(value: Any) -> Any:
    if hasattr(value, "attribute_map"):
        # An OpenAPI-generator model (kubeflow-katib): its own to_dict gives Python names, not those of the wire.
        from kubernetes.client import ApiClient  # loads for 0.3 s, so only when such an object comes

        return ApiClient().sanitize_for_serialization(value)
    return value.to_dict() if hasattr(value, "to_dict") else value
