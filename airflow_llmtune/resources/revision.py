"""Which version of a model a pod serves: a label that the controller carries from the spec to Deployments and pods.

``status.observedGeneration`` cannot tell it: KServe copies there that of the Deployment, or Knative's, whose
generations count other changes; an LLMInferenceService has none. The label follows from the spec alone, so that the
same model deployed twice is the same object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from airflow_llmtune.resources.meta import path

__all__ = ["REVISION_LABEL", "digest", "read_revision", "read_revisions", "revision_of", "stamped"]

REVISION_LABEL = "airflow-llmtune/revision"

# What does not change a pod, so that a change of it starts none.
_NOT_OF_THE_POD = (
    "name",
    "minReplicas",
    "maxReplicas",
    "replicas",
    "scaleTarget",
    "scaleMetric",
    "scaleMetricType",
    "autoScaling",
    "scaling",
    "canaryTrafficPercent",
    "deploymentStrategy",
    "rolloutStrategy",
    "router",
    "prefill",
)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def revision_of(component: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in component.items() if key not in _NOT_OF_THE_POD}
    labels = {key: value for key, value in (kept.pop("labels", None) or {}).items() if key != REVISION_LABEL}
    return digest({**kept, "labels": labels} if labels else kept)


def stamped(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with each component's revision in its labels."""
    marked = deepcopy(dict(spec))
    for component in _components(marked):
        component["labels"] = {**(component.get("labels") or {}), REVISION_LABEL: revision_of(component)}
    return marked


def read_revision(component: Any) -> str | None:
    value: str | None = path(component, "labels", REVISION_LABEL)
    return value


def read_revisions(spec: Mapping[str, Any]) -> list[str]:
    """Those that the Deployments of an object with this spec have to reach."""
    found = (read_revision(component) for component in _components(spec))
    return sorted({revision for revision in found if revision is not None})


def _components(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What has pods of its own: an LLMInferenceService itself, and its prefill; the parts of an InferenceService."""
    if "predictor" not in spec:
        assert isinstance(spec, dict)
        yield spec
    parts = [spec.get(name) for name in ("predictor", "transformer", "explainer", "prefill")]
    parts += [path(canary, "predictor") for canary in spec.get("canary") or []]
    yield from (part for part in parts if isinstance(part, dict))
