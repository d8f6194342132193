"""CustomResourceDefinition objects of the kinds that are always served, as a cluster with Katib and its friends has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.apiserver.definitions import built_in_definition
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, KINDS

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry


def install_definitions(registry: Registry) -> None:
    """To be called at each start; what is there stays."""
    for kind in KINDS:
        if kind.is_custom:
            definition = built_in_definition(kind)
            if registry.find(CUSTOM_RESOURCE_DEFINITION, None, definition["metadata"]["name"]) is None:
                registry.create(CUSTOM_RESOURCE_DEFINITION, definition)
