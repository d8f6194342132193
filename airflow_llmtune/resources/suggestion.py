"""A Katib Suggestion: the parameter sets of an Experiment. We only read it; Katib makes it, under the same name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, condition, path

__all__ = ["KIND", "pod_selector", "read_trouble"]

KIND = ResourceKind("kubeflow.org", "v1beta1", "Suggestion", "suggestions")


def pod_selector(name: str) -> str:
    """The pods of its service, not those of the trials."""
    return f"katib.kubeflow.org/suggestion={name}"


def read_trouble(obj: Mapping[str, Any], *, ended: bool) -> str | None:
    """
    Why an Experiment gets no parameter sets, in one sentence; None when nothing is wrong.

    :param ended: the Experiment has ended, and what is open is not missing any more.
    """
    algorithm = path(obj, "spec", "algorithm", "algorithmName")
    if (failed := condition(obj, "Failed")) is not None:
        return f"the suggestion of {algorithm} failed: {failed.get('message') or failed.get('reason')}"
    if ended:
        return None
    if condition(obj, "DeploymentReady") is None:
        return f"the suggestion of {algorithm} has no service yet that is ready"
    wanted, given = path(obj, "spec", "requests") or 0, path(obj, "status", "suggestionCount") or 0
    if wanted <= given:
        return None
    short = f"the suggestion of {algorithm} gave {given} of {wanted} parameter sets that were asked for"
    return f"{short}: the algorithm may have no more, or its service may not answer"
