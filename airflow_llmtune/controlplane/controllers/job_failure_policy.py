"""A Job's ``podFailurePolicy``: what a failed pod means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COUNT = "Count"
IGNORE = "Ignore"
FAIL_JOB = "FailJob"
FAIL_INDEX = "FailIndex"


@dataclass(frozen=True)
class Verdict:
    action: str = COUNT
    message: str = ""
    """Why the job fails, for ``FailJob``."""


def verdict(policy: Mapping[str, Any] | None, pod: Mapping[str, Any]) -> Verdict:
    """The action of the first rule that the pod meets."""
    metadata = pod["metadata"]
    shown = f"{metadata.get('namespace', '')}/{metadata['name']}"
    for number, rule in enumerate((policy or {}).get("rules", ())):
        tail = f"matching {rule['action']} rule at index {number}"
        if "onExitCodes" in rule:
            container = _container_meeting(rule["onExitCodes"], pod.get("status", {}))
            if container is not None:
                code = container["state"]["terminated"]["exitCode"]
                return Verdict(
                    rule["action"], f"Container {container['name']} for pod {shown} failed with exit code {code} {tail}"
                )
        elif condition := _condition_meeting(rule.get("onPodConditions") or (), pod.get("status", {})):
            return Verdict(rule["action"], f"Pod {shown} has condition {condition} {tail}")
    return Verdict()


def _container_meeting(requirement: Mapping[str, Any], status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name, values = requirement.get("containerName"), requirement.get("values", ())
    for container in [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]:
        code = container.get("state", {}).get("terminated", {}).get("exitCode", 0)
        if code and name in (None, container["name"]) and (code in values) == (requirement["operator"] == "In"):
            found: Mapping[str, Any] = container
            return found
    return None


def _condition_meeting(patterns: Any, status: Mapping[str, Any]) -> str:
    wanted = {(pattern["type"], pattern.get("status", "True")) for pattern in patterns}
    met = (one["type"] for one in status.get("conditions", ()) if (one["type"], one["status"]) in wanted)
    return next(met, "")
