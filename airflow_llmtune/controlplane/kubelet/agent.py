"""The node agent: registers the node, sees pods come and go, and keeps a worker for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, seconds_to_look_again
from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
)
from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.clock import Clock, timestamp, utc_now
from airflow_llmtune.controlplane.kubelet.addresses import Addresses
from airflow_llmtune.controlplane.kubelet.claim_folders import ClaimFolders
from airflow_llmtune.controlplane.kubelet.container_setup import PodContext
from airflow_llmtune.controlplane.kubelet.devices import Devices
from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK
from airflow_llmtune.controlplane.kubelet.host_names import HostNames
from airflow_llmtune.controlplane.kubelet.images import Images
from airflow_llmtune.controlplane.kubelet.in_process import InProcessImage
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.node import NODE_NAME, all_resources, node_labels, node_status
from airflow_llmtune.controlplane.kubelet.pod_logs import PodLogFiles
from airflow_llmtune.controlplane.kubelet.pod_view import PodView
from airflow_llmtune.controlplane.kubelet.pod_worker import PodWorker
from airflow_llmtune.controlplane.kubelet.runtime_client import RuntimeClient
from airflow_llmtune.controlplane.kubelet.survivors import Survivors
from airflow_llmtune.controlplane.kubelet.volumes import Volumes

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_LOOKUP_KINDS = {
    "Secret": SECRET,
    "ConfigMap": CONFIG_MAP,
    "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIM,
    "ServiceAccount": SERVICE_ACCOUNT,
}

_STOP_SECONDS = 10.0

log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods that are bound to its node.

    :param images: image name to the prefix (a virtual environment) whose ``bin`` its programs come from
    :param hosts: names that pods can reach besides those of Services, with their addresses
    :param suggestion_address: where the names of Suggestions' Services lead to
    :param authority: the certificate that pods find as their service account's ``ca.crt``
    :param node_resources: what the node has, in place of what the machine has
    :param outage_seconds: how long containers run on when this kubelet is killed, for a later one on the same folder
    :param is_temporary: whether the folder is to go when this kubelet is killed
    """

    def __init__(
        self,
        registry: Registry,
        state_dir: Path,
        images: Mapping[str, Path] | None = None,
        in_process_images: Mapping[str, InProcessImage] | None = None,
        clock: Clock = utc_now,
        *,
        restart_backoff_base_seconds: float = 10.0,
        hosts: Mapping[str, str] | None = None,
        suggestion_address: str = LOOPBACK,
        authority: bytes = b"",
        node_resources: Mapping[str, str] | None = None,
        outage_seconds: float = 0.0,
        is_temporary: bool = False,
    ) -> None:
        self._registry = registry
        self._pods_dir = state_dir / "pods"
        self._claims_dir = state_dir / "volumes"
        self._claim_folders = ClaimFolders(registry, self._claims_dir)
        self._images = Images(images, in_process_images or {})
        self._clock = clock
        self._restart_backoff_base_seconds = restart_backoff_base_seconds
        self._addresses = Addresses()
        self._host_names = HostNames(registry, hosts or {}, suggestion_address)
        self._authority = authority
        self._resources = all_resources(node_resources or {})
        self._devices = Devices(self._resources)
        self._logs = PodLogFiles(registry, self._pods_dir)
        self._runtime = RuntimeClient(state_dir, outage_seconds=outage_seconds, is_temporary=is_temporary)
        self._survivors = Survivors({})
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; call ``stop`` then."""
        self._register_node()
        self._survivors = Survivors(await self._runtime.adopt())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods())
            group.create_task(self._host_names.follow_services())
            group.create_task(self._claim_folders.follow())

    async def stop(self) -> None:
        """Kill every process of every pod and wait until all are gone."""
        await asyncio.gather(*(worker.stop(0) for worker in self._workers.values()))
        ending = asyncio.gather(*self._tasks.values(), *self._stops, return_exceptions=True)
        # A process that hangs in the kernel cannot be killed; then its pod is given up with the runtime.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.shield(ending)
        await self._runtime.stop()
        await ending

    def open_log(self, namespace: str, pod_name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """What a container wrote since its last start (or the one before), and what it still writes."""
        return self._logs.open(namespace, pod_name, container, options)

    async def _follow_pods(self) -> None:
        first = True
        while True:
            try:
                version = self._registry.resource_version
                self._look_at_all()
                if first:
                    self._later(self._end_the_unknown())
                    first = False
                async for event in self._registry.watch(POD, resource_version=version):
                    if event.type == "DELETED":
                        self._forget(event.object["metadata"]["uid"])
                    else:
                        self._look_at(event.object)
            except ApiError as error:
                await asyncio.sleep(seconds_to_look_again(error))

    def _register_node(self) -> None:
        node = self._registry.find(NODE, None, NODE_NAME)
        if node is None:
            self._registry.create(NODE, {"metadata": {"name": NODE_NAME, "labels": node_labels()}, "spec": {}})
            node = self._registry.get(NODE, None, NODE_NAME)
        node["status"] = node_status(self._resources, node.get("status", {}), timestamp(self._clock()))
        self._registry.update_status(NODE, node)

    def _look_at_all(self) -> None:
        """Also at the start; later on, pods may have gone unseen."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._registry.list(POD)[0]}
        for uid in self._workers.keys() & pods.keys():
            self._publish(pods[uid])  # It may have been impossible when it was due.
        # Those that an earlier kubelet ran come first: they keep their devices.
        for pod in sorted(pods.values(), key=lambda pod: "startTime" not in pod.get("status", {})):
            self._look_at(pod)
        for uid in self._workers.keys() - pods.keys():
            self._forget(uid)

    async def _end_the_unknown(self) -> None:
        """Containers and files of pods that went while no kubelet ran."""
        await self._survivors.end_all_but(self._workers)
        uids = {entry.view["metadata"]["uid"] for entry in self._registry.entries(POD)}
        known = {PodFolder(self._pods_dir, uid).path for uid in uids}
        for path in set(self._pods_dir.iterdir() if self._pods_dir.is_dir() else ()) - known:
            await asyncio.to_thread(PodFolder(self._pods_dir, path.name).remove)

    def _look_at(self, pod: dict[str, Any]) -> None:
        """One that cannot be handled must not end the others."""
        try:
            self._handle(pod)
        except ApiError:
            raise
        except Exception:
            metadata = pod["metadata"]
            log.exception("the kubelet cannot handle pod %s/%s", metadata["namespace"], metadata["name"])

    def _handle(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        if pod["spec"].get("nodeName") != NODE_NAME:
            if pod["spec"].get("nodeName") and "deletionTimestamp" in metadata:
                self._confirm_deletion(pod)  # On a node that there is not: nobody else will.
            return
        worker = self._workers.get(metadata["uid"])
        is_finished = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        if worker is None and not is_finished:
            worker = self._start(pod)
        elif pod["spec"].get("readinessGates"):
            self._publish(pod)  # Somebody may have opened one.
        if "deletionTimestamp" not in metadata:
            return
        if metadata["uid"] not in self._tasks:
            self._confirm_deletion(pod)  # The kubelet that was to do it has ended, or it could not be written down.
        elif worker is not None:
            self._stop_later(worker, float(metadata.get("deletionGracePeriodSeconds") or 0))

    def _start(self, pod: dict[str, Any]) -> PodWorker:
        uid, pod = pod["metadata"]["uid"], self._addresses.given(pod)
        worker = self._workers[uid] = self._worker(pod)
        self._tasks[uid] = asyncio.create_task(self._run_pod(pod, worker))
        return worker

    def _worker(self, pod: dict[str, Any]) -> PodWorker:
        metadata = pod["metadata"]
        namespace, uid = metadata["namespace"], metadata["uid"]
        folder = PodFolder(self._pods_dir, uid)

        def lookup(kind: str, name: str) -> dict[str, Any] | None:
            return self._registry.find(_LOOKUP_KINDS[kind], namespace, name)

        view = PodView(pod, folder, self._authority, lookup)
        adopted, lost = self._survivors.of(pod, self._images)
        context = PodContext(
            pod=pod,
            folder=folder,
            volumes={},
            images=self._images,
            runtime=self._runtime,
            lookup=lookup,
            hosts=lambda: self._host_names.of(namespace),
            view=view,
            device_environment=lambda name: self._devices.environment(pod, name),
            clock=self._clock,
            backoff_base_seconds=self._restart_backoff_base_seconds,
            publish=lambda: self._publish(pod),
            tell=lambda type_, reason, message: self._tell(pod, type_, reason, message),
        )
        failure = lost or self._devices.take(pod, folder)
        self._host_names.add(pod, view)
        return PodWorker(context, Volumes(pod, folder.volumes, self._claims_dir, lookup), adopted, failure)

    async def _run_pod(self, pod: dict[str, Any], worker: PodWorker) -> None:
        metadata = pod["metadata"]
        try:
            await self._survivors.end_lost(metadata["uid"])
            await worker.run()
        except Exception:
            log.exception("pod %s/%s failed inside the kubelet", metadata["namespace"], metadata["name"])
            await worker.abort()
        finally:
            self._tasks.pop(metadata["uid"], None)
            self._host_names.remove(metadata["uid"])
            self._addresses.release(metadata["uid"])
        self._devices.release(metadata["uid"])
        with _written_later():
            self._confirm_deletion(pod)
        self._later(self._claim_folders.tidy())

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
        # In a thread: a training may have left a lot.
        self._later(asyncio.to_thread(PodFolder(self._pods_dir, uid).remove))

    def _stop_later(self, worker: PodWorker, grace_seconds: float) -> None:
        self._later(worker.stop(grace_seconds))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    def _publish(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        current = self._registry.find(POD, metadata["namespace"], metadata["name"])
        worker = self._workers.get(metadata["uid"])
        if current is None or worker is None or current["metadata"]["uid"] != metadata["uid"]:
            return
        current["status"] = worker.status(current)
        self._host_names.note(current)
        if worker.has_ended:
            self._devices.release(metadata["uid"])  # Before the scheduler can know.
        with _written_later():
            self._registry.update_status(POD, current)

    def _tell(self, pod: dict[str, Any], type_: str, reason: str, message: str) -> None:
        with _written_later():
            self._registry.record_event(pod, type_, reason, message)


@contextlib.contextmanager
def _written_later() -> Iterator[None]:
    """A disk that is full for a while is no reason to fail pods: all are looked at again when it has room."""
    try:
        yield
    except ApiError as error:
        if error.code < 500:
            raise
        log.warning("%s", error.message)
