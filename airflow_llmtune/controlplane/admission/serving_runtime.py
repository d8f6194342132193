"""KServe's webhook for ServingRuntimes and ClusterServingRuntimes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_llmtune.controlplane.admission.webhook_denial import DenialError
from airflow_llmtune.controlplane.apiserver.kinds import Kind

Object = dict[str, Any]

_BLOCKED = "PYTHONPATH"


def check_serving_runtime(kind: Kind, runtime: Object, others: Iterable[Object]) -> None:
    """``others``: those of its kind that are there, beside which it would be. Raises DenialError."""
    name, spec = runtime["metadata"]["name"], runtime["spec"]
    if spec.get("disabled"):
        return
    for other in others:
        _check_own_priorities(kind, name, spec)
        if other["metadata"]["name"] != name:
            _check_priorities(kind, runtime, other)
    for container in [*spec["containers"], *((spec.get("workerSpec") or {}).get("containers") or ())]:
        if any(one["name"] == _BLOCKED for one in container.get("env") or ()):
            shown = json.dumps(container["name"])
            raise DenialError(
                f"the {kind.name} {json.dumps(name)} is invalid: setting {_BLOCKED} in container {shown} is not "
                "allowed for security reasons"
            )


def _selected(spec: Object) -> Iterator[Object]:
    return (one for one in spec.get("supportedModelFormats") or () if one.get("autoSelect"))


def _check_own_priorities(kind: Kind, name: str, spec: Object) -> None:
    known: dict[str, int | None] = {}
    for one in _selected(spec):
        if known.setdefault(one["name"], one.get("priority")) != one.get("priority"):
            text = f"different priorities assigned for the model format {one['name']}"
            raise DenialError(f"{text} under the {kind.singular} {name}")


def _check_priorities(kind: Kind, runtime: Object, other: Object) -> None:
    spec, beside = runtime["spec"], other["spec"]
    shared = set(spec.get("protocolVersions") or ()) & set(beside.get("protocolVersions") or ())
    if beside.get("disabled") or bool(spec.get("multiModel")) != bool(beside.get("multiModel")) or not shared:
        return
    for there in _selected(beside):
        for one in _selected(spec):
            same = one["name"].lower() == there["name"].lower() and one.get("version") == there.get("version")
            if same and one.get("priority") is not None and one["priority"] == there.get("priority"):
                where = f" in namespace {runtime['metadata']['namespace']}" if kind.namespaced else ""
                names = f"{other['metadata']['name']} and {runtime['metadata']['name']}"
                text = f"same priority assigned for the model format {one['name']}"
                raise DenialError(f"{text} in the {kind.plural} {names}{where}")
