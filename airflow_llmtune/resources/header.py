"""Preflight of what all manifests begin with: ``apiVersion``, ``kind`` and ``metadata``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.meta import path

if TYPE_CHECKING:
    from airflow_llmtune.resources.meta import ResourceKind
    from airflow_llmtune.resources.problems import Problems

__all__ = ["check_header", "check_metadata", "check_pairs"]

_NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"


def check_header(manifest: Mapping[str, Any], kind: ResourceKind, max_name_length: int, problems: Problems) -> None:
    """``metadata``, and the name in it, may be missing."""
    for key, expected in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if manifest.get(key) != expected:
            problems.add(key, manifest.get(key), f"is not {expected}", f"write {expected}")
    check_metadata("metadata", manifest.get("metadata"), problems)
    problems.namespace("metadata.namespace", path(manifest, "metadata", "namespace"))
    name = path(manifest, "metadata", "name")
    if name is None:
        return
    if not isinstance(name, str) or not re.fullmatch(_NAME, name) or len(name) > max_name_length:
        rule = f"is not a name of at most {max_name_length} characters a-z, 0-9 and `-`, starting with a letter"
        problems.add("metadata.name", name, rule, "shorten it, or leave it out")


def check_metadata(where: str, metadata: Any, problems: Problems) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        problems.add(where, metadata, "is not a mapping", "give such as {'labels': {'team': 'nlp'}}")
        return
    for key in ("labels", "annotations"):
        check_pairs(f"{where}.{key}", metadata.get(key), problems)


def check_pairs(where: str, pairs: Any, problems: Problems) -> None:
    if pairs is not None and not isinstance(pairs, Mapping):
        problems.add(where, pairs, "is not a mapping", "give such as {'team': 'nlp'}")
        return
    for name, value in (pairs or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            rule = "is no pair of texts, and Kubernetes takes nothing else here"
            problems.add(f"{where}.{name}", value, rule, "put both in quotes")
