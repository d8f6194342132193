"""What a task tells OpenLineage, when that provider is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.lineage import DatasetName, name_dataset, read_parameters, read_tags

__all__ = ["openlineage_facets"]

SOURCE = "airflow-provider-llmtune"
# Where the trainer's manifest tells which version of an input it read.
_VERSIONS = {"model": "base_model_revision", "dataset": "dataset_version"}


def openlineage_facets(inputs: Mapping[str, str | None], result: Mapping[str, Any]) -> Any:
    """
    Build the provider's ``OperatorLineage``: sources and adapter as datasets, parameters, objects and metrics.

    :param inputs: ``model``, ``dataset`` or ``adapter`` to its address.
    :param result: what the task returns.
    """
    # Imported here: only OpenLineage's own listener calls this, and most sites do not have it.
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import execution_parameters_run, tags_run

    where = str(result.get("namespace") or "default")
    manifest = result.get("manifest") or {}
    read = [name_dataset(role, text, where, manifest.get(_VERSIONS.get(role, ""))) for role, text in inputs.items()]
    address = result.get("artifact_uri")
    # An evaluation returns the adapter that it read.
    written = [] if address is None or address in inputs.values() else [name_dataset("artifact", address, where)]
    parameters = [
        execution_parameters_run.ExecutionParameter(key=name, value=value)
        for name, value in read_parameters(result).items()
    ]
    tags = [tags_run.TagsRunFacetFields(name, value, SOURCE) for name, value in read_tags(result).items()]
    return OperatorLineage(
        inputs=[_dataset(name) for name in read if name is not None],
        outputs=[_dataset(name) for name in written if name is not None],
        run_facets={
            "executionParameters": execution_parameters_run.ExecutionParametersRunFacet(parameters=parameters),
            "tags": tags_run.TagsRunFacet(tags=tags),
        },
    )


def _dataset(name: DatasetName) -> Any:
    from openlineage.client.event_v2 import Dataset  # as above
    from openlineage.client.facet_v2 import dataset_version_dataset

    if name.version is None:
        return Dataset(name.namespace, name.name)
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=name.version)
    return Dataset(name.namespace, name.name, facets={"version": version})
