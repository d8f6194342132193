"""``fieldValidation``: what happens to fields that a kind does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.apiserver.metadata import KNOWN_FIELDS
from airflow_llmtune.controlplane.apiserver.structural import unknown_fields

_LEVELS = ("Ignore", "Warn", "Strict")


def unknown_field_warnings(kind: Kind, sent: Any, schema: Mapping[str, Any] | None, level: str) -> list[str]:
    """The warnings to answer with; raises 400 when the client asks to be refused instead."""
    if level and level not in _LEVELS:
        raise bad_request(f"invalid fieldValidation: {level}: must be one of {', '.join(_LEVELS)}")
    if level == "Ignore" or not isinstance(sent, dict):
        return []
    metadata = sent.get("metadata")
    found = [f"metadata.{name}" for name in metadata if name not in KNOWN_FIELDS] if isinstance(metadata, dict) else []
    found += unknown_fields(sent, schema, is_object=True) if schema is not None else []
    # A strategic merge patch carries directives beside the fields.
    unknown = [f'unknown field "{path}"' for path in found if "$" not in path]
    if unknown and level == "Strict":
        mistakes = ", ".join(unknown)
        raise bad_request(
            f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
            f"strict decoding error: {mistakes}"
        )
    return unknown
