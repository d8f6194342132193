"""Why an object failed or does not get on, in the words of its pods and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources import event, pod

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["explain", "read_pods"]

LOG_TAIL_LINES = 20


async def read_pods(client: KubeflowClient, namespace: str, selector: str) -> list[dict[str, Any]]:
    """Return the pods that a selector finds, oldest first."""
    pods, _ = await client.list_all(pod.KIND, namespace, label_selector=selector)
    return sorted(pods, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))


async def explain(client: KubeflowClient, namespace: str, name: str, selector: str) -> list[str]:
    """Ask the events only where no pod tells anything: they say the same again, or why there is no pod."""
    return await _explain_pods(client, namespace, selector) or await _explain_events(client, namespace, name)


async def _explain_pods(client: KubeflowClient, namespace: str, selector: str) -> list[str]:
    """Say why pods failed or cannot start, each with the last lines that it printed."""
    try:
        pods = await read_pods(client, namespace, selector)
    except KubernetesApiError as error:
        # The diagnosis must not hide the failure that it explains.
        return [f"its pods could not be read: {error}"]
    failures = [(item, reason) for item in pods if (reason := pod.read_failure(item)) is not None]
    return [reason + await _log_tail(client, item) for item, reason in failures]


async def _explain_events(client: KubeflowClient, namespace: str, name: str) -> list[str]:
    """Say what the cluster complained of about an object and its children; some failures are told nowhere else."""
    try:
        events, _ = await client.list_all(event.KIND, namespace, field_selector=event.WARNINGS)
    except KubernetesApiError as error:
        return [f"its events could not be read: {error}"]
    return event.read_complaints(events, name)


async def _log_tail(client: KubeflowClient, item: dict[str, Any]) -> str:
    metadata = item["metadata"]
    container = pod.log_container(item)
    try:
        text = await client.read_log(metadata["namespace"], metadata["name"], container, tail_lines=LOG_TAIL_LINES)
    except KubernetesApiError:
        # A container that never started has no log; its reason says all there is.
        return ""
    lines = "".join(f"\n      {line}" for line in text.splitlines())
    return f"\n    last lines of its log:{lines}" if lines else ""
