"""Which log a client means: checks what it asks for as the API server and a kubelet do. Logs outlive the processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.kinds import POD
from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.kubelet import logs

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_IMAGE_WAITS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class PodLogFiles:
    def __init__(self, registry: Registry, pods_dir: Path) -> None:
        self._registry = registry
        self._pods_dir = pods_dir

    def open(self, namespace: str, pod_name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        pod = self._registry.get(POD, namespace, pod_name)
        name = container_name(pod, container)
        if not pod["spec"].get("nodeName"):
            return _nothing()
        restart = log_number(pod, name, previous=options.previous)
        path = logs.PodFolder(self._pods_dir, pod["metadata"]["uid"]).log(name, restart)
        return logs.stream(path, options, self._has_ended(pod, name, restart))

    def _has_ended(self, pod: dict[str, Any], name: str, restart: int) -> Callable[[], bool]:
        metadata = pod["metadata"]

        def has_ended() -> bool:
            current = self._registry.find(POD, metadata["namespace"], metadata["name"])
            if current is None or current["metadata"]["uid"] != metadata["uid"]:
                return True
            status = container_status(current, name)
            return status.get("restartCount", 0) != restart or "running" not in status.get("state", {})

        return has_ended


def container_name(pod: dict[str, Any], wanted: str) -> str:
    """The container that is meant; without a name it must be the only one."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    containers, init = ([one["name"] for one in spec.get(field, ())] for field in ("containers", "initContainers"))
    if wanted:
        if wanted not in containers + init:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) > 1:
        text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
        raise bad_request(f"{text} or one of the init containers: [{' '.join(init)}]" if init else text)
    return str(containers[0])


def container_status(pod: dict[str, Any], name: str) -> dict[str, Any]:
    status = pod.get("status", {})
    known = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((one for one in known if one["name"] == name), {})


def log_number(pod: dict[str, Any], name: str, *, previous: bool) -> int:
    """Which start of the container wrote the log; raises 400 when there is no such start."""
    where = f'container "{name}" in pod "{pod["metadata"]["name"]}"'
    status = container_status(pod, name)
    state, count = status.get("state", {}), int(status.get("restartCount", 0))
    has_last = "terminated" in status.get("lastState", {})
    if previous:
        if not has_last:
            raise bad_request(f"previous terminated {where} not found")
        return count if "waiting" in state else count - 1
    if "waiting" in state and not has_last:
        reason = state["waiting"]["reason"]
        raise bad_request(f"{where} is waiting to start: {_IMAGE_WAITS.get(reason, reason)}")
    if not state:
        raise bad_request(f"{where} is waiting to start: ContainerCreating")
    return count


async def _nothing() -> AsyncIterator[bytes]:
    """Of a pod that has no node yet."""
    no_pieces: tuple[bytes, ...] = ()
    for piece in no_pieces:
        yield piece
