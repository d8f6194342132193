"""The containers that an earlier kubelet started and that its runtime still knows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any

from airflow_llmtune.controlplane.kubelet.adoption import is_lost, is_noted
from airflow_llmtune.controlplane.kubelet.images import Images
from airflow_llmtune.controlplane.kubelet.pod_status import Failure
from airflow_llmtune.controlplane.kubelet.pod_worker import Adopted, node_lost
from airflow_llmtune.controlplane.kubelet.runtime_client import ContainerProcess, RuntimeLostError, StartError


class Survivors:
    def __init__(self, containers: Mapping[str, ContainerProcess]) -> None:
        self._by_pod: dict[str, dict[str, tuple[int, ContainerProcess]]] = defaultdict(dict)
        self._of_lost: dict[str, list[ContainerProcess]] = {}
        self._executions: list[ContainerProcess] = []
        """Probes and hooks: nobody waits for what they say any more."""
        for container_id, process in containers.items():
            uid, name, restart, *execution = container_id.split("/")
            others = self._by_pod[uid]
            if execution:
                self._executions.append(process)
            elif name not in others or others[name][0] < int(restart):
                others[name] = (int(restart), process)

    def of(self, pod: dict[str, Any], images: Images) -> tuple[Adopted, Failure | None]:
        """What runs on; or why the pod has failed, if one of its containers has gone missing."""
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        found = self._by_pod.pop(uid, {})
        for name, (restart, process) in list(found.items()):
            if process.has_ended and is_noted(name, pod, restart):
                process.forget()
                del found[name]
        for one in [*spec.get("initContainers", ()), *spec["containers"]]:
            is_function = images.in_process(one.get("image", "")) is not None
            if is_lost(one, pod, is_known=one["name"] in found, is_function=is_function):
                self._of_lost[uid] = [process for _, process in found.values()]
                return {}, node_lost(pod)
        return found, None

    async def end_lost(self, uid: str) -> None:
        """What is left of a pod that has failed for what it lost."""
        await _end(self._of_lost.pop(uid, ()))

    async def end_all_but(self, uids: Container[str]) -> None:
        executions, self._executions = self._executions, []
        await _end(executions)
        for uid in [uid for uid in self._by_pod if uid not in uids]:
            await _end(process for _, process in self._by_pod.pop(uid).values())


async def _end(processes: Iterable[ContainerProcess]) -> None:
    async def end(process: ContainerProcess) -> None:
        await process.stop(0)
        with contextlib.suppress(RuntimeLostError, StartError):
            await process.wait()
        process.forget()

    await asyncio.gather(*(end(one) for one in processes))
