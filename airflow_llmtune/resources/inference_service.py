"""An InferenceService of KServe: preflight, and what its status says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.header import check_header
from airflow_llmtune.resources.meta import ResourceKind, path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import read_revision

__all__ = [
    "DEPLOYMENT_MODE",
    "KIND",
    "MAX_NAME_LENGTH",
    "MODES",
    "OWNER_LABEL",
    "check_manifest",
    "deployment_mode",
    "pod_selector",
    "read_deployments",
    "read_url",
    "storage_uri",
]

KIND = ResourceKind("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices", strict=True)
OWNER_LABEL = "serving.kserve.io/inferenceservice"
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
MODES = ("Standard", "Knative")
# Names that KServe gave them before 0.16.
_OLD_MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}

# `<name>-<canary>-predictor` is the name of a Service, at most 63 characters.
MAX_NAME_LENGTH = 63 - len("-r12345678-predictor")


def pod_selector(name: str) -> str:
    """Select the Deployments and pods of one InferenceService."""
    return f"{OWNER_LABEL}={name}"


def deployment_mode(obj: Mapping[str, Any] | None) -> str | None:
    """The mode in force, else the one that is asked for."""
    mode: str | None = path(obj, "status", "deploymentMode") or path(obj, "metadata", "annotations", DEPLOYMENT_MODE)
    return None if mode is None else _OLD_MODES.get(mode, mode)


def read_deployments(obj: Mapping[str, Any]) -> dict[str, str | None]:
    """In Standard mode: the name of each Deployment, and the revision that it is to have."""
    name, spec = obj["metadata"]["name"], obj["spec"]
    wanted = {f"{name}-{part}": read_revision(spec[part]) for part in ("transformer", "explainer") if spec.get(part)}
    predictors = [spec["predictor"], *(canary["predictor"] for canary in spec.get("canary") or [])]
    return wanted | {_predictor_name(name, predictor): read_revision(predictor) for predictor in predictors}


def _predictor_name(name: str, predictor: Mapping[str, Any]) -> str:
    return "-".join(part for part in (name, predictor.get("name"), "predictor") if part)


def read_url(obj: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The URL from outside of the cluster, and the one from inside."""
    return path(obj, "status", "url"), path(obj, "status", "address", "url")


def storage_uri(predictor: Mapping[str, Any]) -> str:
    """The one by which KServe tells whether a predictor has another model."""
    return path(predictor, "model", "storageUri") or ""


# --- preflight of a manifest that somebody else wrote -------------------------------------------------------


def check_manifest(manifest: Mapping[str, Any], problems: Problems) -> None:
    """Note what KServe's webhook or definition would refuse at first sight; the API server checks the rest."""
    spec = manifest.get("spec")
    if not isinstance(path(spec, "predictor"), Mapping):
        rule = "has no predictor"
        problems.add("spec", spec, rule, f"give a whole {KIND.kind} manifest")
        return
    check_header(manifest, KIND, MAX_NAME_LENGTH, problems)
    if path(manifest, "metadata", "name") is None:
        rule = "is missing: it is part of the model's URL, so nobody else can choose it"
        problems.add("metadata.name", None, rule, "give a name")
    mode = path(manifest, "metadata", "annotations", DEPLOYMENT_MODE)
    if isinstance(mode, str) and mode not in _OLD_MODES:  # any other type was noted with the annotations
        problems.choice(f"metadata.annotations.{DEPLOYMENT_MODE}", mode, MODES)
