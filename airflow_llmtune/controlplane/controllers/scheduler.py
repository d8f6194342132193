"""The default scheduler: binds pods to the node while it has room, and says why one has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, seconds_to_look_again
from airflow_llmtune.controlplane.apiserver.kinds import NODE, POD
from airflow_llmtune.controlplane.clock import Clock, timestamp, utc_now
from airflow_llmtune.controlplane.controllers.fitting import (
    Amounts,
    Node,
    misfit,
    node_of,
    requests,
    total,
    unschedulable_message,
)
from airflow_llmtune.controlplane.quantities import QuantityError

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_NAME = "default-scheduler"
_NO_NODES = "no nodes available to schedule pods"
_GATED = "Scheduling is blocked due to non-empty scheduling gates"

log = logging.getLogger(__name__)


@dataclass
class _Waiting:
    created: str
    namespace: str
    name: str
    spec: Mapping[str, Any]
    needed: Amounts
    shape: str
    """All of it that decides where it fits."""
    told: str = ""
    """Why it waits, as it has been told."""


class Scheduler:
    """Keeps in mind what is bound and what waits, so that a change costs no look at all pods."""

    def __init__(self, registry: Registry, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._clock = clock
        self._bound: dict[str, tuple[str, Amounts]] = {}
        """By uid: the node, and what the pod asks for."""
        self._waiting: dict[str, _Waiting] = {}
        """By uid, in the order of arrival."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods())
            group.create_task(self._follow_nodes())

    async def _follow_nodes(self) -> None:
        """A node that is changed, cordoned for example, or comes back changes what fits."""
        while True:
            try:
                async for _ in self._registry.watch(NODE, resource_version=self._registry.resource_version):
                    self._schedule()
            except ApiError as error:
                await asyncio.sleep(seconds_to_look_again(error))

    async def _follow_pods(self) -> None:
        while True:
            try:
                version = self._registry.resource_version
                self._look_at_all()
                watch = self._registry.watch(POD, resource_version=version)
                async for event in watch:
                    changes = [event, *watch.take_ready()]
                    found = [self._note(one.object, is_gone=one.type == "DELETED") for one in changes]
                    # One pass for all changes that are there, and none when no room came and nobody asks for some.
                    if any(found):
                        self._schedule()
            except ApiError as error:
                await asyncio.sleep(seconds_to_look_again(error))

    def _look_at_all(self) -> None:
        self._bound.clear()
        self._waiting.clear()
        for entry in self._registry.entries(POD):
            self._note(entry.view, is_gone=False)
        self._schedule()

    def _note(self, pod: Mapping[str, Any], *, is_gone: bool) -> bool:
        """Whether there may be something to schedule now."""
        metadata, spec = pod["metadata"], pod["spec"]
        uid = metadata["uid"]
        is_over = is_gone or pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        if is_over or spec.get("nodeName"):
            self._waiting.pop(uid, None)
            if is_over:
                return self._bound.pop(uid, None) is not None
            if uid not in self._bound:
                self._bound[uid] = (spec["nodeName"], requests(spec))
            return False
        if spec.get("schedulerName", _NAME) != _NAME or "deletionTimestamp" in metadata:
            self._waiting.pop(uid, None)
            return False
        known = self._waiting.get(uid)
        if known is not None and known.spec == spec:
            return False  # Only its status has changed, and that is written here.
        needed = requests(spec)
        self._waiting[uid] = _Waiting(
            metadata["creationTimestamp"],
            metadata["namespace"],
            metadata["name"],
            spec,
            needed,
            shape=repr((sorted(needed.items()), spec.get("nodeSelector"), spec.get("affinity"))),
            told="" if known is None else known.told,
        )
        return True

    def _schedule(self) -> None:
        """Oldest first; one that has to wait does not hold up those behind it."""
        nodes = self._nodes()
        # Room only shrinks in a pass: the first pod that does not fit speaks for all that ask for the same.
        refused: dict[str, str] = {}
        for uid, waiting in sorted(self._waiting.items(), key=lambda item: item[1].created):
            try:
                nodes = self._decide(uid, waiting, nodes, refused)
            except ApiError as error:
                if error.code >= 500:
                    raise
                self._skip(uid, waiting, error.message)

    def _decide(self, uid: str, waiting: _Waiting, nodes: list[Node], refused: dict[str, str]) -> list[Node]:
        """The nodes with what is left of them; why it does not fit is added to ``refused``."""
        if waiting.spec.get("schedulingGates"):
            self._hold(uid, waiting, "SchedulingGated", _GATED)
        elif not nodes:
            self._hold(uid, waiting, "Unschedulable", _NO_NODES)
        elif waiting.shape in refused:
            self._hold(uid, waiting, "Unschedulable", refused[waiting.shape])
        else:
            return self._place(uid, waiting, nodes, refused)
        return nodes

    def _skip(self, uid: str, waiting: _Waiting, why: str) -> None:
        """A pod that the API server refuses to have changed holds up nobody else."""
        pod = self._pod(uid, waiting) if waiting.told != why else None
        if pod is not None:
            waiting.told = why
            log.warning("pod %s/%s cannot be scheduled: %s", waiting.namespace, waiting.name, why)
            with contextlib.suppress(ApiError):
                self._registry.record_event(pod, "Warning", "FailedScheduling", why)

    def _nodes(self) -> list[Node]:
        found = []
        for entry in self._registry.entries(NODE):
            name = entry.key[1]
            used = total(amounts for home, amounts in self._bound.values() if home == name)
            try:
                found.append(node_of(entry.view, used))
            except QuantityError as error:
                log.warning("node %s is left out: %s", name, error)
        return found

    def _place(self, uid: str, waiting: _Waiting, nodes: list[Node], refused: dict[str, str]) -> list[Node]:
        misfits = [misfit(waiting.spec, waiting.needed, node) for node in nodes]
        fitting = next((node for node, found in zip(nodes, misfits, strict=True) if found is None), None)
        if fitting is None:
            refused[waiting.shape] = unschedulable_message(one for one in misfits if one)
            self._hold(uid, waiting, "Unschedulable", refused[waiting.shape])
            return nodes
        self._bind(uid, waiting, fitting.name)
        taken = replace(fitting, used=total([fitting.used, waiting.needed]))
        return [taken if node is fitting else node for node in nodes]

    def _pod(self, uid: str, waiting: _Waiting) -> dict[str, Any] | None:
        """As it is now; None for one that has gone or was bound by somebody else, of which an event will tell."""
        pod = self._registry.find(POD, waiting.namespace, waiting.name)
        if pod is None or pod["metadata"]["uid"] != uid or pod["spec"].get("nodeName"):
            return None
        return pod

    def _bind(self, uid: str, waiting: _Waiting, node: str) -> None:
        pod = self._pod(uid, waiting)
        if pod is None:
            del self._waiting[uid]
            return
        metadata = pod["metadata"]
        pod["spec"]["nodeName"] = node
        self._registry.update(POD, pod)
        del self._waiting[uid]
        self._bound[uid] = (node, waiting.needed)
        text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
        self._registry.record_event(pod, "Normal", "Scheduled", text)

    def _hold(self, uid: str, waiting: _Waiting, reason: str, message: str) -> None:
        """Say in the pod's status why it waits, unless it says so already."""
        pod = self._pod(uid, waiting) if waiting.told != message else None
        if pod is None:
            return
        waiting.told = message
        if reason == "Unschedulable":
            self._registry.record_event(pod, "Warning", "FailedScheduling", message)
        status = pod.setdefault("status", {})
        others = [one for one in status.get("conditions", ()) if one["type"] != "PodScheduled"]
        old: dict[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "PodScheduled"), {})
        now = timestamp(self._clock())
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": old.get("lastTransitionTime", now),
            "reason": reason,
            "message": message,
        }
        status["conditions"] = [*others, condition]
        self._registry.update_status(POD, pod)
