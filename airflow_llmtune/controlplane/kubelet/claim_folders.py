"""The folders of volume claims go with them, as on a cluster what was provisioned for one does."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, seconds_to_look_again
from airflow_llmtune.controlplane.apiserver.kinds import PERSISTENT_VOLUME_CLAIM, POD

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = dict[str, Any]
# No namespace is called so. What is left here when the kubelet ends goes at its next start.
_GONE = ".gone"


class ClaimFolders:
    """``folder`` has one for each claim, ``<namespace>/<name>``."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                version = self._registry.resource_version
                await self.tidy()
                async for event in self._registry.watch(PERSISTENT_VOLUME_CLAIM, resource_version=version):
                    if event.type == "DELETED":
                        await self.tidy()
            except ApiError as error:
                await asyncio.sleep(seconds_to_look_again(error))

    async def tidy(self) -> None:
        """Remove what no claim stands for any more, and no pod still uses."""
        async with self._turn:
            for path in list(self._folder.glob("*/*")):
                if not self._is_needed(path.parent.name, path.name):
                    # Moved away first: the next claim of this name begins with an empty folder.
                    gone = self._folder / _GONE / uuid.uuid4().hex
                    gone.parent.mkdir(exist_ok=True)
                    path.rename(gone)
                    await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    def _is_needed(self, namespace: str, name: str) -> bool:
        if self._registry.find(PERSISTENT_VOLUME_CLAIM, namespace, name) is not None:
            return True
        return any(name in _claims(pod) for pod in self._registry.list(POD, namespace)[0] if not _has_ended(pod))


def _claims(pod: Object) -> set[str]:
    volumes = pod["spec"].get("volumes") or ()
    return {(volume.get("persistentVolumeClaim") or {}).get("claimName", "") for volume in volumes}


def _has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
