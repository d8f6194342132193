"""The fields on the page of compatibility, from the schemas that the control plane shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.openapi import OPENAPI_SCHEMAS
from docs.compatibility_notes import Note

Schema = dict[str, Any]

FIELD_KINDS = ("Experiment", "Suggestion", "Trial", "Job", "PyTorchJob", "TrainJob", "TrainingRuntime", "JobSet", "Pod")

# What has rows of its own already, by the kind and the path it is met at.
_ELSEWHERE = {
    ("Experiment", "spec.metricsCollectorSpec.collector.customCollector"): "as `spec.containers[]` of a Pod",
    ("Experiment", "spec.nasConfig.operations[].parameters[]"): "as `spec.parameters[]`",
    ("Suggestion", "spec.algorithm"): "as of an Experiment",
    ("Suggestion", "spec.earlyStopping"): "as of an Experiment",
    ("Trial", "spec.objective"): "as of an Experiment",
    ("Trial", "spec.metricsCollector"): "as `spec.metricsCollectorSpec` of an Experiment",
    ("TrainJob", "spec.initializer.model"): "as `spec.initializer.dataset`",
    ("Job", "spec.template.spec"): "as `spec` of a Pod",
    ("PyTorchJob", "spec.pytorchReplicaSpecs{}.template.spec"): "as `spec` of a Pod",
    ("TrainingRuntime", "spec.template.spec"): "as `spec` of a JobSet",
    ("JobSet", "spec.replicatedJobs[].template.spec"): "as `spec` of a Job",
    ("Pod", "spec.initContainers[]"): "as `spec.containers[]`",
}
_METADATA = ".metadata"
# An object of no more than these says nothing that the paths below it do not.
_TEMPLATE_FIELDS = frozenset({"metadata", "spec", "template"})


def field_rows(kind: str) -> Iterable[tuple[str, str | Sequence[str]]]:
    """Each object below ``spec`` under its path, with the names of its fields or where they stand."""
    yield from _rows(kind, "spec", _spec(kind))


def _spec(kind: str) -> Schema:
    schema = next(schema for known, schema in OPENAPI_SCHEMAS.items() if known.name == kind)
    spec: Schema = schema["properties"]["spec"]
    return spec


def _rows(kind: str, path: str, schema: Schema) -> Iterator[tuple[str, str | Sequence[str]]]:
    path, schema = _innermost(path, schema)
    properties = schema.get("properties")
    if not properties or path.endswith(_METADATA):
        return
    if (kind, path) in _ELSEWHERE:
        yield path, _ELSEWHERE[kind, path]
        return
    if not _TEMPLATE_FIELDS.issuperset(properties):
        yield path, list(properties)
    for name, one in properties.items():
        yield from _rows(kind, f"{path}.{name}", one)


def _innermost(path: str, schema: Schema) -> tuple[str, Schema]:
    """Past lists and maps, each of which leaves its mark on the path."""
    while True:
        if "items" in schema:
            path, schema = f"{path}[]", schema["items"]
        elif "additionalProperties" in schema:
            path, schema = f"{path}{{}}", schema["additionalProperties"]
        else:
            return path, schema


def split_field_note(note: Note) -> tuple[str, list[str]]:
    """A note is about fields of one kind: ``Pod spec.priority, spec.os``."""
    kind, _, paths = note.what.partition(" ")
    return kind, paths.split(", ")


def unknown_field(kind: str, paths: Iterable[str]) -> str:
    """What is wrong with a note about these fields; empty when nothing is."""
    if kind not in FIELD_KINDS:
        return f"no fields of a {kind or 'kind without a name'} are listed"
    known = {f"{path}.{name}" for path, found in field_rows(kind) if not isinstance(found, str) for name in found}
    missing = [path for path in paths if path not in known]
    return f"a {kind} has no field {missing[0]}" if missing else ""
