"""How OpenLineage names what a task read and wrote, and what it tells of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_llmtune.resources.meta import path, text_of
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.source import Source

__all__ = ["DatasetName", "name_dataset", "read_parameters", "read_tags"]

HUB = "https://huggingface.co"
# What of a result finds the objects of the run again.
_OBJECTS = ("experiment", "trial", "job", "namespace")


class DatasetName(NamedTuple):
    namespace: str
    name: str
    version: str | None = None


def name_dataset(role: str, address: Any, kubernetes_namespace: str, version: Any = None) -> DatasetName | None:
    """Name a ``model``, ``dataset`` or ``artifact`` after where it lies; None for what has no address."""
    source = Source.read(role, address, Problems())
    if source is None:
        return None
    told = version if isinstance(version, str) and version else source.revision
    if source.claim is not None:
        inside = "/" + str(address).removeprefix(f"pvc://{source.claim}").strip("/")
        return DatasetName(f"pvc://{kubernetes_namespace}/{source.claim}", inside, told)
    if source.flag.startswith("hf://"):
        # Namespace and name together are the page's address.
        folder = "datasets/" if role == "dataset" else ""
        return DatasetName(HUB, folder + source.flag.removeprefix("hf://"), told)
    if source.flag.startswith("s3://"):
        bucket, _, key = source.flag.removeprefix("s3://").partition("/")
        return DatasetName(f"s3://{bucket}", key or "/", told)
    return DatasetName("file", source.flag.removeprefix("file://"), told)


def read_parameters(result: Mapping[str, Any]) -> dict[str, str]:
    """The hyperparameters of the best trial, or those of the training."""
    found = result.get("parameters") or path(result, "manifest", "parameters") or {}
    return {str(name): text_of(value) for name, value in found.items() if isinstance(value, str | int | float)}


def read_tags(result: Mapping[str, Any]) -> dict[str, str]:
    tags = {key: str(result[key]) for key in _OBJECTS if result.get(key)}
    return tags | {f"metrics.{name}": text_of(value) for name, value in (result.get("metrics") or {}).items()}
