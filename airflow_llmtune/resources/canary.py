"""A canary of an InferenceService: a new version beside the one that serves, with a share of the requests. Pure.

In Standard mode it is an entry of ``spec.canary``; in Knative mode a percentage beside the changed predictor.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from airflow_llmtune.resources.inference_service import DEPLOYMENT_MODE, KIND, deployment_mode, storage_uri
from airflow_llmtune.resources.meta import path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.revision import read_revision
from airflow_llmtune.resources.rollback_record import whole_manifest

__all__ = ["kept_name", "share", "traffic_of", "with_canary", "with_traffic"]

JSON = dict[str, Any]
_CONTAINER = "kserve-container"
# A canary has a fixed number of pods.
_NOT_OF_A_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "workerSpec")


def kept_name(current: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> JSON:
    """
    Keep the name that a promoted canary has left to the predictor.

    It is part of the Deployment's name: with another one KServe deletes the pods that serve before new ones are ready.
    """
    name = path(current, "spec", "predictor", "name")
    if name is None or path(spec, "predictor", "name") is not None:
        return dict(spec)
    return {**spec, "predictor": {**spec["predictor"], "name": name}}


def with_canary(
    current: Mapping[str, Any] | None, manifest: Mapping[str, Any], percent: int, problems: Problems
) -> JSON:
    """The object of which ``manifest``'s predictor gets ``percent`` of the requests, and what serves now the rest."""
    if current is None:
        rule = "needs a version that gets the other requests, and there is no such InferenceService"
        problems.add("canary_traffic_percent", percent, rule, "leave it out for the first deployment")
        return dict(manifest)
    new, stable = manifest["spec"]["predictor"], current["spec"]["predictor"]
    is_knative = deployment_mode(current) == "Knative"
    # In Knative mode what is tried already is the predictor itself.
    if read_revision(new) == read_revision(stable) and not (is_knative and share(current["spec"]) is not None):
        rule = "would go to the version that serves already"
        problems.add("canary_traffic_percent", percent, rule, "deploy another model, or leave it out")
    if is_knative:
        return {**manifest, "spec": {**manifest["spec"], "predictor": {**new, "canaryTrafficPercent": percent}}}
    if percent == 0:
        rule = "starts no pod in Standard mode, so nothing would be tried"
        problems.add("canary_traffic_percent", percent, rule, "give 1 or more, or use Knative mode")
    if new.get("storageUris"):
        rule = "needs Knative mode for an adapter: KServe fetches no `storageUris` for a canary in Standard mode"
        fix = "deploy a merged model, or base and adapter from absolute paths of a mounted volume"
        problems.add("canary_traffic_percent", percent, rule, fix)
    predictor = {key: value for key, value in new.items() if key not in _NOT_OF_A_CANARY}
    if "minReplicas" in predictor:
        predictor["minReplicas"] = min(predictor["minReplicas"], stable.get("minReplicas", 1))
    # KServe's definition demands the container's name of a canary, and its webhook forbids it elsewhere.
    predictor["model"] = {**new["model"], "name": _CONTAINER}
    # Another model has another name, so that a promoted canary can keep its own.
    predictor["name"] = f"r{(read_revision(new) or '')[:8]}"
    canary = {"trafficPercent": percent, "predictor": predictor}
    whole = whole_manifest(KIND, current)
    # KServe wants it written, also where it is the cluster's default.
    whole["metadata"].setdefault("annotations", {})[DEPLOYMENT_MODE] = "Standard"
    return {**whole, "spec": {**whole["spec"], "canary": [canary]}}


def with_traffic(current: Mapping[str, Any], percent: int, problems: Problems) -> JSON:
    """The spec under which the canary gets that share; with 100 it becomes the stable version, with 0 it ends."""
    spec: JSON = deepcopy(current["spec"])
    if deployment_mode(current) == "Knative":
        return _with_knative_traffic(spec, percent, problems)
    canaries = spec.get("canary") or []
    if len(canaries) != 1:
        _note_missing(f"has {len(canaries)} canaries, not one", percent, problems)
    elif percent == 0:
        del spec["canary"]
    elif percent == 100:
        return _promoted(spec)
    else:
        canaries[0]["trafficPercent"] = percent
    return spec


def share(spec: Mapping[str, Any]) -> int | None:
    """Percent of the requests that a canary is to get; None without one."""
    if canaries := spec.get("canary"):
        return sum(entry.get("trafficPercent") or 0 for entry in canaries)
    percent: int | None = path(spec, "predictor", "canaryTrafficPercent")
    return percent


def traffic_of(percent: int | None) -> int | None:
    """The share to wait for; a canary that ended or was promoted has none."""
    return percent if percent is not None and 0 < percent < 100 else None


def _with_knative_traffic(spec: JSON, percent: int, problems: Problems) -> JSON:
    predictor = spec["predictor"]
    if predictor.get("canaryTrafficPercent") is None:
        _note_missing("has no canary", percent, problems)
    elif percent == 100:
        del predictor["canaryTrafficPercent"]
    else:
        predictor["canaryTrafficPercent"] = percent
    return spec


def _note_missing(what: str, percent: int, problems: Problems) -> None:
    rule = f"cannot be given: the InferenceService {what}"
    problems.add("percent", percent, rule, "deploy one with DeployLLMOperator(canary_traffic_percent=…) first")


def _promoted(spec: JSON) -> JSON:
    """With the canary's name the predictor takes over its pods; KServe allows that for another ``storageUri`` only."""
    stable, new = spec["predictor"], spec.pop("canary")[0]["predictor"]
    # What a canary leaves out it has from the stable version, save where its model lies.
    promoted = {key: value for key, value in stable.items() if key != "storageUris"} | new
    promoted["model"] = {key: value for key, value in new["model"].items() if key != "name"}
    for key in ("minReplicas", "name"):
        promoted.pop(key, None)
        if key in stable:
            promoted[key] = stable[key]
    if storage_uri(stable) != storage_uri(new):
        promoted["name"] = new["name"]
    return {**spec, "predictor": promoted}
