"""Why an object failed or does not get on, in the words of its pods and events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources import event, pod
from airflow_llmtune.resources.cause import gist
from airflow_llmtune.resources.redaction import redacted

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["Diagnosis", "explain", "read_pods"]

JSON = dict[str, Any]
LOG_TAIL_LINES = 20
LOG_LINE_LENGTH = 500
# What Katib's collector says of a container that has ended badly.
NO_WORDS = "Training container did not complete"
# More pods than these say the same thing again.
EXPLAINED_PODS = 3


async def read_pods(client: KubeflowClient, namespace: str, selector: str) -> list[JSON]:
    """Return the pods that a selector finds, oldest first."""
    pods, _ = await client.list_all(pod.KIND, namespace, label_selector=selector)
    return sorted(pods, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))


async def explain(client: KubeflowClient, namespace: str, name: str, selector: str, *, ended: bool = True) -> list[str]:
    """
    Say why an object failed, or what it does; each line is indented below what it belongs to.

    :param ended: it has failed; else what its pods do is told as well.
    """
    return await Diagnosis(client, namespace, name).explain(name, selector, ended=ended)


class Diagnosis:
    """
    One look at an object and at what was made for it.

    What cannot be read is told as that: it must not hide the failure that is explained.
    """

    def __init__(self, client: KubeflowClient, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._events: list[JSON] | None = None

    async def explain(self, name: str, selector: str, *, ended: bool) -> list[str]:
        """Ask the events only where no pod tells anything: they say the same again, or why there is no pod."""
        try:
            pods = await read_pods(self._client, self._namespace, selector)
        except KubernetesApiError as error:
            return [f"its pods could not be read: {error}"]
        read = [(item, pod.read_failure(item)) for item in pods]
        failed = [(item, reason) for item, reason in read if reason is not None]
        lines = await self._tell_pods(failed) if failed else await self.complaints(name)
        if not ended:
            # Of what hangs without a word, its last words are all there is.
            lines += await self._tell_pods([(item, pod.read_life(item)) for item, reason in read if reason is None])
        return lines

    async def last_words(self, selector: str) -> list[str]:
        """Tell what pods that ended well have printed at last."""
        try:
            pods = await read_pods(self._client, self._namespace, selector)
        except KubernetesApiError as error:
            return [f"its pods could not be read: {error}"]
        if not pods:
            return ["its pod is gone, and its output with it: `retain: true` in the trial template keeps it"]
        return await self._tell_pods([(item, pod.read_life(item)) for item in pods])

    async def complaints(self, name: str, *, below: bool = True) -> list[str]:
        """Say what the cluster complained of about an object and its children; some failures are told nowhere else."""
        try:
            if self._events is None:
                found, _ = await self._client.list_all(event.KIND, self._namespace, field_selector=event.WARNINGS)
                self._events = found
        except KubernetesApiError as error:
            return [f"its events could not be read: {error}"]
        return event.read_complaints(self._events, name, below=below)

    async def _tell_pods(self, told: Sequence[tuple[JSON, str]]) -> list[str]:
        """Tell each cause once, with the last lines of one pod's log."""
        lines: list[str] = []
        seen: set[str] = set()
        for item, reason in told[:EXPLAINED_PODS]:
            name = item["metadata"]["name"]
            tail = await self._log_tail(item)
            cause = gist("\n".join([reason, *tail]), self._name)
            lines += [f"pod {name}: for the same reason"] if cause in seen else [f"pod {name}: {reason}", *tail]
            seen.add(cause)
        if len(told) > EXPLAINED_PODS:
            lines.append(f"and {len(told) - EXPLAINED_PODS} more pods")
        return lines

    async def _log_tail(self, item: JSON) -> list[str]:
        found: list[str] = []
        for container in pod.log_containers(item):
            text = await self._last_lines(item, container)
            lines = [line[:LOG_LINE_LENGTH] for line in redacted(text, ()).splitlines() if line != NO_WORDS]
            found += [f"    {line}" for line in lines]
        return ["  last lines of its log:", *found] if found else []

    async def _last_lines(self, item: JSON, container: str) -> str:
        where = self._namespace, item["metadata"]["name"], container
        # One that was just started again after a crash has not printed anything yet.
        for previous in (False, True):
            with suppress(KubernetesApiError):  # One that never started has none; its reason says all there is.
                if text := await self._client.read_log(*where, tail_lines=LOG_TAIL_LINES, previous=previous):
                    return text
        return ""
