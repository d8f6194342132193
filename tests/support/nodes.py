"""A kubelet that runs, with short ways to give it pods and to see what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, POD
from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.kubelet import Kubelet
from airflow_llmtune.controlplane.kubelet.node import NODE_NAME
from objects import Object
from waiting import eventually


class Node:
    """Its pods are bound to the node from the start: no scheduler runs."""

    def __init__(self, registry: Registry, kubelet: Kubelet) -> None:
        self.registry = registry
        self.kubelet = kubelet

    def create(
        self,
        script: str = "",
        *,
        name: str = "pod",
        container: Object | None = None,
        metadata: Object | None = None,
        **spec: Any,
    ) -> Object:
        main = {"name": "main", "image": "busybox", "command": ["sh", "-c", script], **(container or {})}
        body = {"restartPolicy": "Never", "nodeName": NODE_NAME, "containers": [main], **spec}
        meta = {"name": name, "namespace": "default", **(metadata or {})}
        return self.registry.create(POD, {"metadata": meta, "spec": body})

    def pod(self, name: str = "pod") -> Object | None:
        return self.registry.find(POD, "default", name)

    async def until(self, holds: Callable[[Object], Any], name: str = "pod") -> Object:
        return await eventually(lambda: pod if (pod := self.pod(name)) is not None and holds(pod) else None)

    async def running(self, name: str = "pod") -> Object:
        return await self.until(lambda pod: pod["status"]["phase"] == "Running", name)

    async def end(self, name: str = "pod") -> Object:
        return await self.until(lambda pod: pod["status"]["phase"] in {"Succeeded", "Failed"}, name)

    async def gone(self, name: str = "pod") -> None:
        await eventually(lambda: self.pod(name) is None)

    async def ready(self, name: str = "pod") -> Object:
        return await self.until(is_ready, name)

    def events(self, reason: str = "Unhealthy") -> list[str]:
        """The messages of those with this reason, in no order."""
        return [one["message"] for one in self.registry.list(EVENT, "default")[0] if one["reason"] == reason]

    async def log(self, container: str = "", **options: Any) -> str:
        pieces = self.kubelet.open_log("default", "pod", container, LogOptions(**options))
        return b"".join([piece async for piece in pieces]).decode()


@asynccontextmanager
async def running(registry: Registry, kubelet: Kubelet, *, leaves: bool = False) -> AsyncIterator[Node]:
    """``leaves``: it ends as if killed, so that what it started runs on."""
    others = asyncio.all_tasks()
    task = asyncio.create_task(kubelet.run())
    try:
        yield Node(registry, kubelet)
    finally:
        ended = asyncio.all_tasks() - others if leaves else {task}
        for one in ended:
            one.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        if not leaves:
            await kubelet.stop()
    with contextlib.suppress(asyncio.CancelledError):
        task.result()  # The kubelet's own failure, if it had one.


def node_kubelet(registry: Registry, state_dir: Path, **settings: Any) -> Kubelet:
    return Kubelet(registry, state_dir, **{"restart_backoff_base_seconds": 0.05, **settings})


def terminated(pod: Object, index: int = 0) -> Object:
    found: Object = pod["status"]["containerStatuses"][index]["state"]["terminated"]
    return found


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return {one["type"]: one["status"] for one in conditions}.get("Ready") == "True"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dead(*pids: int) -> None:
    await eventually(lambda: not any(is_alive(pid) for pid in pids))


def written_pids(path: Path, count: int = 1) -> list[int] | None:
    """The numbers that a script writes, one a line; None as long as one is missing."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [int(line) for line in lines] if len(lines) >= count and lines[-1].endswith("\n") else None
