"""What a wait does about an object that does not get on: it tells what the cluster complains of, and looks closer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.diagnosis import read_pods
from airflow_llmtune.resources import event, pod
from airflow_llmtune.resources.cause import gist
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.triggers.list_watch import Selection
from airflow_llmtune.triggers.patience import Patience

if TYPE_CHECKING:
    from airflow_llmtune.triggers.base import WaitTrigger
    from airflow_llmtune.triggers.shared_watch import View

__all__ = ["CANNOT_START", "STALLED", "Scrutiny", "warnings_in"]

# Reasons of an Outcome that the wait itself ended.
STALLED = "Stalled"
CANNOT_START = "CannotStart"
# A kubelet that still cannot mount a volume says so at least every five minutes; the event itself stays for an hour.
FRESH_SECONDS = 360.0
# Different complaints of one wait; who has more of them reads the cluster's own events.
MOST_COMPLAINTS = 50


def warnings_in(namespace: str) -> Selection:
    """
    Select what is complained of: one watch for all waits of the namespace, whatever they wait for.

    Not changes only: a pod is often refused before the wait for it has begun. Of what is not ours nothing is kept.
    """
    return Selection(
        event.KIND, namespace, event.read_complaint, event.owners, field_selector=event.WARNINGS, optional=True
    )


class Scrutiny:
    """
    Looks at one object, and only when its patience is over: each look costs requests, and thousands may wait.

    :param trigger: whose wait it is.
    """

    __slots__ = ("_heard", "_missing_volumes", "_told", "_trigger", "patience")

    def __init__(self, trigger: WaitTrigger) -> None:
        self._trigger = trigger
        # Of the many waits without any they are the same two.
        self._told: frozenset[str] = frozenset()
        self._heard: frozenset[event.Complaint] = frozenset()
        self._missing_volumes: dict[str, tuple[str, float]] | None = None
        """By pod: what it has to mount, and when it was said last."""
        self.begin()

    def begin(self) -> None:
        """Count anew: the wait begins, or watches something else."""
        self.patience = Patience(self._trigger.stall_timeout, self._trigger.startup_timeout)

    def hear(self, news: View) -> None:
        """Take what is complained of now."""
        heard, self._heard = self._heard, frozenset(news.readings)
        for complaint in sorted(self._heard - heard, key=lambda one: one.seen):
            if complaint.is_of_a_start:
                self.patience.complain()
            if (missing := complaint.missing_volume) is not None:
                self._missing_volumes = {**(self._missing_volumes or {}), complaint.name: (missing, time.monotonic())}
            self._tell(complaint)

    def _tell(self, complaint: event.Complaint) -> None:
        """Log a complaint, each once, however many objects it befalls."""
        cause = gist(f"{complaint.reason}: {complaint.message}", self._trigger.name)
        if cause not in self._told and len(self._told) < MOST_COMPLAINTS:
            self._told |= {cause}
            self._trigger.log.warning("%s", complaint)

    async def look(self, view: View) -> Outcome | None:
        """Return the outcome of a wait that has come to nothing; None when it goes on."""
        if self.patience.has_stalled:
            reason, why = STALLED, f"got no further for {self._trigger.stall_timeout:g} s"
        elif self.patience.wants_a_look and (hanging := await self._find_hanging(view)) is not None:
            reason, why = CANNOT_START, f"cannot start: {hanging}"
        else:
            return None
        message = f"{self._trigger.kind.kind} {self._trigger.name} {why}"
        if self._trigger.on_stall == "fail":
            return Outcome("Failed", reason, message)
        self._trigger.log.warning("\n  ".join([message, *await self._diagnose(view)]))
        self.patience.keep_quiet()
        return None

    async def _find_hanging(self, view: View) -> str | None:
        """Return which pod cannot start and why, unless that may pass by itself."""
        trigger, since = self._trigger, time.monotonic() - FRESH_SECONDS
        missing = {name: text for name, (text, said) in (self._missing_volumes or {}).items() if said >= since}
        self.patience.looked()
        try:
            async with view.client() as client:
                pods = await read_pods(client, trigger.namespace, trigger.pod_selector(trigger.name))
        except KubernetesApiError as error:
            trigger.warn_once("pods", f"Whether a pod cannot start could not be found out: {error}")
            return None
        names = [item["metadata"]["name"] for item in pods]
        read = ((name, pod.read_hang(item, missing.get(name))) for name, item in zip(names, pods, strict=True))
        # The rest is for the task's own text, with that of the other pods.
        return next((f"pod {name}: {reason.partition(': ')[0]}" for name, reason in read if reason is not None), None)

    async def _diagnose(self, view: View) -> list[str]:
        trigger = self._trigger
        try:
            async with view.client() as client:
                obj = await client.find(trigger.kind, trigger.namespace, trigger.name)
                return [] if obj is None else await trigger.read_reasons(client, obj)
        except KubernetesApiError as error:
            return [f"why could not be read: {error}"]
