"""Which of the node's GPUs a container sees: as many as it asks for, and no two pods the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.pod_status import Failure
from airflow_llmtune.controlplane.quantities import whole

GPU = "nvidia.com/gpu"


class Devices:
    """What each pod has is also noted in its folder, for a kubelet that comes after this one."""

    def __init__(self, resources: Mapping[str, str]) -> None:
        self._all = device_names(whole(resources.get(GPU, 0)), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self._taken: dict[str, list[str]] = {}

    def take(self, pod: Mapping[str, Any], folder: PodFolder) -> Failure | None:
        """Why the pod cannot have what it asks for, if so: it was bound to the node without the scheduler."""
        note = folder.path / "devices"
        wanted = devices_of_pod(pod["spec"])
        if not self._all or not wanted:
            return None
        if note.exists():
            devices = note.read_text().split()
        else:
            taken = {one for each in self._taken.values() for one in each}
            free = [one for one in self._all if one not in taken]
            if wanted > len(free):
                return _unavailable(wanted, len(free))
            devices = free[:wanted]
            folder.path.mkdir(parents=True, exist_ok=True)
            note.write_text("\n".join(devices))
        self._taken[pod["metadata"]["uid"]] = devices
        return None

    def release(self, uid: str) -> None:
        self._taken.pop(uid, None)

    def environment(self, pod: Mapping[str, Any], container: str) -> dict[str, str]:
        """Nothing when no GPUs were declared: containers then have what the machine has."""
        if not self._all:
            return {}
        own = ",".join(devices_of_container(pod["spec"], container, self._taken.get(pod["metadata"]["uid"], [])))
        return {"CUDA_VISIBLE_DEVICES": own, "NVIDIA_VISIBLE_DEVICES": own or "void"}


def device_names(count: int, visible: str) -> list[str]:
    """Where the control plane itself is confined to some, those are what can be given away."""
    listed = [name.strip() for name in visible.split(",") if name.strip()]
    return listed[:count] if len(listed) >= count else [str(index) for index in range(count)]


def devices_of_container(spec: Mapping[str, Any], name: str, devices: Sequence[str]) -> Sequence[str]:
    """Its part of what the pod has. Init containers end before the others begin, so they share with those."""
    first = 0
    for one in spec["containers"]:
        if one["name"] == name:
            return devices[first : first + _wanted(one)]
        first += _wanted(one)
    return devices[: next(_wanted(one) for one in spec["initContainers"] if one["name"] == name)]


def devices_of_pod(spec: Mapping[str, Any]) -> int:
    together = sum(_wanted(one) for one in spec["containers"])
    return max([together, *(_wanted(one) for one in spec.get("initContainers", ()))])


def _wanted(container: Mapping[str, Any]) -> int:
    resources = container.get("resources") or {}
    return whole((resources.get("limits") or {}).get(GPU, 0))


def _unavailable(wanted: int, free: int) -> Failure:
    text = f"Allocate failed due to requested number of devices unavailable for {GPU}. Requested: {wanted}, "
    return Failure("UnexpectedAdmissionError", f"{text}Available: {free}, which is unexpected")
