"""Whether a model that was deployed is served now, from the object, its Deployments and its pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_llmtune.resources import canary, deployment, inference_service, pod
from airflow_llmtune.resources.meta import Outcome, path
from airflow_llmtune.resources.revision import read_revision, read_revisions

__all__ = ["SUPERSEDED", "Rollout", "has_failed", "read_rollout"]

JSON = Mapping[str, Any]

# Reason of an Outcome: the object asks for another model now, so its state says nothing of ours.
SUPERSEDED = "Superseded"

# For this long a failure that the status told already may still be that of the version before.
_STALE_SECONDS = 30.0

_FATAL_WAITING = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
_FAILED_STATES = frozenset({"InvalidSpec", "BlockedByFailedLoad"})


class Rollout(NamedTuple):
    """What is waited for: these revisions, applied at that time."""

    revisions: Sequence[str]
    started: float
    start_timeout: float
    traffic: int | None = None  # percent that the newest version is to get, where that is asked for
    had_failed: bool = False  # as the status told when it was applied


def read_rollout(obj: JSON, deployments: Sequence[JSON], pods: Sequence[JSON], want: Rollout, now: float) -> Outcome:
    is_other = want.traffic not in (None, canary.share(obj["spec"]))
    if is_other or not set(want.revisions) <= set(read_revisions(obj["spec"])):
        return Outcome("Failed", SUPERSEDED, "somebody else has changed it since")
    newest = _newest(deployments)
    ours = [item for item in newest if deployment.revision(item) in want.revisions]
    # An earlier revision may be of the same version, with pods that an earlier try has left.
    serving = {deployment.knative_revision(item) for item in newest} | {None}
    own_pods = [item for item in pods if deployment.knative_revision(item) in serving]
    late = now - want.started > want.start_timeout
    failure = _failed_pod(own_pods, want, late=late) or _failed_deployment(ours, late=late)
    if failure is None and (not want.had_failed or now - want.started > _STALE_SECONDS):
        failure = _failed_status(obj, deployments, pods, want)
    if failure is not None:
        return failure
    if _is_missing(obj, ours, want):
        why = f"KServe has not acted on it yet{_complaint(obj)}"
        return Outcome("Failed", "NotStarted", why) if late else Outcome("Running", "", why)
    for item in ours:
        if not deployment.is_rolled_out(item):
            return Outcome("Running", "", f"{item['metadata']['name']}: {deployment.progress(item)}")
    return _read_status(obj, ours, want)


def has_failed(obj: JSON) -> bool:
    """Whether KServe says that the model cannot be served."""
    return path(obj, "status", "modelStatus", "transitionStatus") in _FAILED_STATES


def _newest(deployments: Sequence[JSON]) -> list[JSON]:
    """In Knative mode each component has one for each of its revisions; the last counts."""
    names = sorted(name for item in deployments if (name := deployment.knative_revision(item)))
    last = {name.rpartition("-")[0]: name for name in names}
    return [item for item in deployments if deployment.knative_revision(item) in (None, *last.values())]


def _is_missing(obj: JSON, ours: Sequence[JSON], want: Rollout) -> bool:
    """In Standard mode the names count too: a promoted canary's Deployment has the revision before the stable one."""
    found = {item["metadata"]["name"]: deployment.revision(item) for item in ours}
    if inference_service.deployment_mode(obj) == "Standard":
        wanted = inference_service.read_deployments(obj)
        return any(found.get(name) != revision for name, revision in wanted.items() if revision in want.revisions)
    return not set(want.revisions) <= set(found.values())


def _failed_pod(pods: Sequence[JSON], want: Rollout, *, late: bool) -> Outcome | None:
    """A new pod that cannot run; what Kubernetes may still mend in time counts only when that time is over."""
    for item in pods:
        if read_revision(item["metadata"]) not in want.revisions or item["metadata"].get("deletionTimestamp"):
            continue
        reason = _fatal_reason(item) or ("NotReady" if late and pod.read_failure(item) else None)
        if reason is not None:
            return Outcome("Failed", reason, f"pod {item['metadata']['name']}: {pod.read_failure(item)}")
    return None


def _fatal_reason(item: JSON) -> str | None:
    status = item.get("status") or {}
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = path(entry, "state", "waiting", "reason")
        if waiting in _FATAL_WAITING:
            return str(waiting)
        if path(entry, "state", "terminated", "reason") == "OOMKilled":
            return "OOMKilled"
    return None


def _failed_deployment(deployments: Sequence[JSON], *, late: bool) -> Outcome | None:
    for item in deployments if late else []:
        if (why := deployment.has_given_up(item)) is not None:
            return Outcome("Failed", "NotProgressing", f"Deployment {item['metadata']['name']}: {why}")
    return None


def _failed_status(obj: JSON, deployments: Sequence[JSON], pods: Sequence[JSON], want: Rollout) -> Outcome | None:
    """What KServe says of the model; beside pods of another version it may speak of those."""
    status = path(obj, "status", "modelStatus") or {}
    state = status.get("transitionStatus")
    others = any(read_revision(item["metadata"]) not in want.revisions for item in pods)
    if not has_failed(obj) or (state != "InvalidSpec" and others and not _is_of_newest(obj, deployments, want)):
        return None
    info = status.get("lastFailureInfo") or {}
    return Outcome("Failed", info.get("reason") or str(state), info.get("message") or f"KServe calls the model {state}")


def _is_of_newest(obj: JSON, deployments: Sequence[JSON], want: Rollout) -> bool:
    """In Knative mode the model's state is that of the newest revision, which may never get to a Deployment."""
    newest = path(obj, "status", "components", "predictor", "latestCreatedRevision")
    others = [item for item in deployments if deployment.revision(item) not in want.revisions]
    return newest is not None and newest not in {deployment.knative_revision(item) for item in others}


def _read_status(obj: JSON, ours: Sequence[JSON], want: Rollout) -> Outcome:
    if inference_service.deployment_mode(obj) == "Knative":
        component = path(obj, "status", "components", "predictor") or {}
        created, ready = component.get("latestCreatedRevision"), component.get("latestReadyRevision")
        if created != ready or ready not in {deployment.knative_revision(item) for item in ours}:
            return Outcome("Running", "", f"revision {created} was created, and {ready} is the last that was ready")
    states = {entry.get("type"): entry.get("status") for entry in path(obj, "status", "conditions") or []}
    if states.get("Ready") != "True" or states.get("CanaryPredictorReady", "True") != "True":
        return Outcome("Running", "", f"it is not ready yet{_complaint(obj)}")
    if path(obj, "status", "canaryStatuses") and not obj["spec"].get("canary"):
        return Outcome("Running", "", "the canary before is not gone yet")
    wanted = 100 if canary.share(obj["spec"]) is None else want.traffic
    if wanted is not None and (share := _traffic(obj)) != wanted:
        return Outcome("Running", "", f"the newest version gets {share} % of the requests")
    return Outcome("Succeeded", "Ready", "served")


def _complaint(obj: JSON) -> str:
    """The first condition that does not hold and says why, as the end of a sentence."""
    for entry in path(obj, "status", "conditions") or []:
        if entry.get("status") == "False" and entry.get("message"):
            return f": {entry.get('type')}: {entry.get('reason') or ''} {entry['message']}"
    return ""


def _traffic(obj: JSON) -> int:
    """Percent of the requests that the newest version gets."""
    canaries = path(obj, "status", "canaryStatuses")
    if canaries:
        return sum(entry.get("trafficPercent") or 0 for entry in canaries if entry.get("ready"))
    component = path(obj, "status", "components", "predictor") or {}
    newest = component.get("latestReadyRevision")
    targets = component.get("traffic") or []
    if not targets:
        return 100
    shares = [
        target.get("percent") or 0
        for target in targets
        if target.get("latestRevision") or target.get("revisionName") == newest
    ]
    return sum(shares)
