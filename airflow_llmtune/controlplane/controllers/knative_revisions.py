"""What Knative makes of a predictor: its revisions, which of them get requests, and what it tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName")


@dataclass(frozen=True)
class Readiness:
    value: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Target:
    """One line of a Knative Service's ``traffic``; without a revision it means the latest that is ready."""

    percent: int
    revision: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Revision:
    name: str
    readiness: Readiness


@dataclass(frozen=True)
class KnativeStatus:
    """Of a Knative Service."""

    latest_created: str
    latest_ready: str
    traffic: tuple[Object, ...]
    configurations: Readiness
    routes: Readiness

    @property
    def readiness(self) -> Readiness:
        """Of both; what is False counts first."""
        for value in ("False", "Unknown"):
            for one in (self.configurations, self.routes):
                if one.value == value:
                    return one
        return Readiness("True")

    @property
    def failed(self) -> bool:
        return "False" in (self.configurations.value, self.routes.value)

    @property
    def shares(self) -> list[tuple[str, int]]:
        """Percents by revision, each revision once."""
        shares: dict[str, int] = {}
        for one in self.traffic:
            shares[one["revisionName"]] = shares.get(one["revisionName"], 0) + one["percent"]
        return list(shares.items())


def revision_name(configuration: str, number: int) -> str:
    return f"{configuration}-{number:05d}"


def targets(predictor: Mapping[str, Any], last_rolled_out: str, *, tag_latest: bool) -> list[Target]:
    """How KServe asks for a canary; before anything was rolled out there is none."""
    percent: int | None = predictor.get("canaryTrafficPercent")
    tag = "latest" if tag_latest else ""
    if percent is None or not last_rolled_out:
        return [Target(100, tag=tag)]
    rest = [Target(100 - percent, last_rolled_out, "prev")] if percent < 100 else []
    return [Target(percent, tag=tag), *rest]


def readiness(deployment: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Readiness:
    """Of a revision. A crash is told at once, an image that is missing too: Knative looks for images itself."""
    status = deployment.get("status") or {}
    if status.get("availableReplicas"):
        return Readiness("True")
    for pod in pods[:1]:
        failure = _pod_failure(pod)
        if failure is not None:
            return failure
    for condition in status.get("conditions") or ():
        if condition["type"] == "Progressing" and condition["status"] == "False":
            return Readiness("False", "ProgressDeadlineExceeded", "Initial scale was never achieved")
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Readiness("False", str(condition.get("reason", "")), str(condition.get("message", "")))
    return Readiness("Unknown", "Deploying")


def _pod_failure(pod: Mapping[str, Any]) -> Readiness | None:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = container["state"].get("waiting", {})
        if waiting.get("reason") in _IMAGE_REASONS:
            text = f'Unable to fetch image "{container["image"]}": {waiting.get("message", "")}'
            return Readiness("False", "ContainerMissing", text)
    for container in status.get("containerStatuses") or ():
        ended = container.get("lastState", {}).get("terminated")
        if ended is not None:
            text = f"Container failed with: {ended.get('message', '')}"
            return Readiness("False", f"ExitCode{ended.get('exitCode', 0)}", text)
    return None


def knative_status(
    configuration: str, revisions: Sequence[Revision], before: str, asked: Sequence[Target]
) -> KnativeStatus:
    """``revisions`` in the order of their making; ``before``: the latest that was ready at the last look."""
    latest = revisions[-1]
    ready = [one.name for one in revisions if one.readiness.value == "True" or one.name == before]
    latest_ready = ready[-1] if ready else ""
    told = latest.readiness
    match told.value:
        case "False":
            text = f'Revision "{latest.name}" failed with message: {told.message}.'
            configurations = Readiness("False", "RevisionFailed", text)
        case "Unknown":
            configurations = Readiness("Unknown")
        case _:
            configurations = Readiness("True")
    if latest_ready:
        traffic = tuple(_line(one, latest_ready) for one in asked)
        return KnativeStatus(latest.name, latest_ready, traffic, configurations, Readiness("True"))
    if told.value == "False":
        text = f'Configuration "{configuration}" does not have any ready Revision.'
        return KnativeStatus(latest.name, "", (), configurations, Readiness("False", "RevisionMissing", text))
    text = f'Configuration "{configuration}" is waiting for a Revision to become ready.'
    return KnativeStatus(latest.name, "", (), configurations, Readiness("Unknown", "RevisionMissing", text))


def _line(target: Target, latest_ready: str) -> Object:
    line: Object = {"latestRevision": not target.revision, "percent": target.percent}
    line["revisionName"] = target.revision or latest_ready
    return {**line, "tag": target.tag} if target.tag else line


def needed(status: KnativeStatus) -> set[str]:
    """The revisions that keep their pods: all that are named in the traffic, and the newest."""
    return {status.latest_created, *(one["revisionName"] for one in status.traffic)}


def set_component(component: Object, status: KnativeStatus) -> None:
    """``status.components.predictor``, in place; which revision is rolled out is worked out as KServe does it."""
    component["latestCreatedRevision"] = status.latest_created
    shares = dict(status.shares)
    for line in status.traffic:
        if line["revisionName"] == status.latest_ready and line["latestRevision"]:
            _set_rolled_out(component, status, line["percent"], shares)
    for field, value in (
        ("latestReadyRevision", status.latest_ready),
        ("traffic", [dict(one) for one in status.traffic]),
    ):
        if value:
            component[field] = value
        else:
            component.pop(field, None)


def _set_rolled_out(component: Object, status: KnativeStatus, percent: int, shares: Mapping[str, int]) -> None:
    ready, rolled_out = status.latest_ready, component.get("latestRolledoutRevision", "")
    if rolled_out != ready:
        if percent == 100:
            if rolled_out:
                component["previousRolledoutRevision"] = rolled_out
            component["latestRolledoutRevision"] = ready
    elif ready == status.latest_created and percent < 100:
        # It was rolled out with all requests and is taken back: both lines name the same revision.
        previous = component.get("previousRolledoutRevision", "")
        if shares[ready] == 100 and previous:
            component["latestRolledoutRevision"] = previous
