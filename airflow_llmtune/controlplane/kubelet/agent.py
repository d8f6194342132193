"""The node agent: sees pods come and go, keeps a worker for each, and hands out logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_llmtune.controlplane.apiserver.errors import ApiError, bad_request
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
)
from airflow_llmtune.controlplane.clock import Clock, utc_now
from airflow_llmtune.controlplane.kubelet import logs, reaper
from airflow_llmtune.controlplane.kubelet.container_runner import PodContext
from airflow_llmtune.controlplane.kubelet.environment import service_host_names
from airflow_llmtune.controlplane.kubelet.images import Images
from airflow_llmtune.controlplane.kubelet.in_process import InProcessImage
from airflow_llmtune.controlplane.kubelet.pod_worker import PodWorker
from airflow_llmtune.controlplane.kubelet.volumes import Volumes

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_LOOKUP_KINDS = {
    "Secret": SECRET,
    "ConfigMap": CONFIG_MAP,
    "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIM,
}

log = logging.getLogger(__name__)


class Kubelet:
    """``images`` maps image names to prefixes (a virtual environment) whose ``bin`` their programs come from."""

    def __init__(
        self,
        registry: Registry,
        state_dir: Path,
        images: Mapping[str, Path] | None = None,
        in_process_images: Mapping[str, InProcessImage] | None = None,
        clock: Clock = utc_now,
        *,
        restart_backoff_base_seconds: float = 10.0,
    ) -> None:
        self._registry = registry
        self._pods_dir = state_dir / "pods"
        self._claims_dir = state_dir / "volumes"
        self._images = Images(images, in_process_images or {})
        self._clock = clock
        self._restart_backoff_base_seconds = restart_backoff_base_seconds
        self._mark = uuid4().hex
        self._watchdog: reaper.Watchdog | None = None
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; call ``stop`` then."""
        while True:
            try:
                version = self._registry.resource_version
                self._look_at_all()
                async for event in self._registry.watch(POD, resource_version=version):
                    if event.type == "DELETED":
                        self._forget(event.object["metadata"]["uid"])
                    else:
                        self._look_at(event.object)
            except ApiError as error:
                if error.code != 410:
                    raise

    async def stop(self) -> None:
        """Kill every process of every pod and wait until all are gone."""
        await asyncio.gather(*(worker.stop(0) for worker in self._workers.values()))
        await asyncio.gather(*self._tasks.values(), *self._stops, return_exceptions=True)
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.stop)
            self._watchdog = None

    def read_log(
        self,
        namespace: str,
        pod_name: str,
        container: str = "",
        *,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
        previous: bool = False,
    ) -> bytes:
        """What a container wrote since its last start (or the one before); nothing when it never ran."""
        path, _ = self._log_file(namespace, pod_name, container, previous=previous)
        return logs.read(path, tail_lines=tail_lines, limit_bytes=limit_bytes)

    async def follow_log(
        self, namespace: str, pod_name: str, container: str = "", *, tail_lines: int | None = None
    ) -> AsyncIterator[bytes]:
        """The log so far (or its last lines) and what is still written, until the container ends."""
        path, restart = self._log_file(namespace, pod_name, container)
        uid = self._registry.get(POD, namespace, pod_name)["metadata"]["uid"]
        start = 0
        if tail_lines is not None and path.exists():
            start = path.stat().st_size - len(logs.read(path, tail_lines=tail_lines))

        def has_ended() -> bool:
            worker = self._workers.get(uid)
            record = worker.record(path.parent.name) if worker is not None else None
            return record is None or record.is_final or record.restart_count > restart

        async for added in logs.follow(path, start, has_ended):
            yield added

    def _look_at_all(self) -> None:
        """Also at the start; later on, pods may have gone unseen."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._registry.list(POD)[0]}
        for pod in pods.values():
            self._look_at(pod)
        for uid in self._workers.keys() - pods.keys():
            self._forget(uid)

    def _look_at(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        worker = self._workers.get(uid)
        if worker is None and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            worker = self._start(pod)
        if worker is not None and "deletionTimestamp" in metadata and not worker.has_ended:
            self._stop_later(worker, float(metadata.get("deletionGracePeriodSeconds") or 0))

    def _start(self, pod: dict[str, Any]) -> PodWorker:
        if self._watchdog is None:
            self._watchdog = reaper.Watchdog(self._mark)
        uid = pod["metadata"]["uid"]
        worker = self._workers[uid] = self._worker(pod)
        self._tasks[uid] = asyncio.create_task(self._run_pod(pod, worker))
        return worker

    def _worker(self, pod: dict[str, Any]) -> PodWorker:
        metadata = pod["metadata"]
        namespace, uid = metadata["namespace"], metadata["uid"]
        folder = logs.PodFolder(self._pods_dir, uid)

        def lookup(kind: str, name: str) -> dict[str, Any] | None:
            return self._registry.find(_LOOKUP_KINDS[kind], namespace, name)

        context = PodContext(
            pod=pod,
            folder=folder,
            volumes={},
            images=self._images,
            lookup=lookup,
            service_hosts=lambda: self._service_hosts(namespace),
            clock=self._clock,
            mark=f"{self._mark}/{uid}",
            backoff_base_seconds=self._restart_backoff_base_seconds,
            publish=lambda: self._publish(pod),
            tell=lambda type_, reason, message: self._registry.record_event(pod, type_, reason, message),
            others_ended=asyncio.Event(),
        )
        return PodWorker(context, Volumes(pod, folder.volumes, self._claims_dir, lookup))

    def _service_hosts(self, namespace: str) -> set[str]:
        services = self._registry.entries(SERVICE, namespace)
        return {name for one in services for name in service_host_names(one.key[1], namespace)}

    async def _run_pod(self, pod: dict[str, Any], worker: PodWorker) -> None:
        metadata = pod["metadata"]
        try:
            await worker.run()
        except Exception:
            log.exception("pod %s/%s failed inside the kubelet", metadata["namespace"], metadata["name"])
            await worker.abort()
        finally:
            self._tasks.pop(metadata["uid"], None)
        self._confirm_deletion(pod)

    def _confirm_deletion(self, pod: dict[str, Any]) -> None:
        """Tell the API server that a deleted pod's processes are gone, so that the object can go too."""
        metadata = pod["metadata"]
        current = self._registry.find(POD, metadata["namespace"], metadata["name"])
        if current is None or current["metadata"]["uid"] != metadata["uid"]:
            self._drop(metadata["uid"])
        elif "deletionTimestamp" in current["metadata"]:
            self._registry.delete(POD, metadata["namespace"], metadata["name"], grace_period_seconds=0)

    def _forget(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is None or uid not in self._tasks:
            self._drop(uid)
        else:  # Removed by force; its files follow when its processes have ended.
            self._stop_later(worker, 0)

    def _drop(self, uid: str) -> None:
        self._workers.pop(uid, None)
        logs.PodFolder(self._pods_dir, uid).remove()

    def _stop_later(self, worker: PodWorker, grace_seconds: float) -> None:
        task = asyncio.create_task(worker.stop(grace_seconds))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def _publish(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        current = self._registry.find(POD, metadata["namespace"], metadata["name"])
        worker = self._workers.get(metadata["uid"])
        if current is None or worker is None or current["metadata"]["uid"] != metadata["uid"]:
            return
        current["status"] = worker.status(current)
        self._registry.update_status(POD, current)

    def _log_file(self, namespace: str, pod_name: str, container: str, *, previous: bool = False) -> tuple[Path, int]:
        """The log of a start of a container (default: the first container) and the number of that start."""
        pod = self._registry.get(POD, namespace, pod_name)
        spec, uid = pod["spec"], pod["metadata"]["uid"]
        known = [one["name"] for one in [*spec["containers"], *spec.get("initContainers", ())]]
        name = container or known[0]
        if name not in known:
            raise bad_request(f"container {name} is not valid for pod {pod_name}")
        worker = self._workers.get(uid)
        record = worker.record(name) if worker is not None else None
        restart = (0 if record is None else record.restart_count) - previous
        return logs.PodFolder(self._pods_dir, uid).log(name, restart), restart
