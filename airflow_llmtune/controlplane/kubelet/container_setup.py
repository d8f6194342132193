"""From a container's spec to what is started: words, environment, folders, image."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.kubelet.environment import (
    Lookup,
    container_environment,
    expand,
    to_loopback,
    told_of_pod,
)
from airflow_llmtune.controlplane.kubelet.images import Images
from airflow_llmtune.controlplane.kubelet.in_process import InProcessImage
from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.kubelet.pod_view import PodView
from airflow_llmtune.controlplane.kubelet.runtime.protocol import ContainerSpec
from airflow_llmtune.controlplane.kubelet.runtime_client import RuntimeClient, StartError
from airflow_llmtune.controlplane.kubelet.volumes import Mount, container_mounts, rewrite
from airflow_llmtune.controlplane.quantities import whole

_DEFAULT_TERMINATION_PATH = "/dev/termination-log"


@dataclass
class PodContext:
    """What all containers of a pod share."""

    pod: dict[str, Any]
    folder: PodFolder
    volumes: dict[str, Path]
    images: Images
    runtime: RuntimeClient
    lookup: Lookup
    hosts: Callable[[], Mapping[str, str]]
    """Names of Services and the like, and their addresses."""
    view: PodView
    device_environment: Callable[[str], Mapping[str, str]]
    """By container: which devices it may use."""
    clock: Clock
    backoff_base_seconds: float
    publish: Callable[[], None]
    """The container's state changed: report the pod's status."""
    tell: Callable[[str, str, str], None]
    """Record an event: type, reason, message."""
    others_ended: asyncio.Event = field(default_factory=asyncio.Event)
    root_pids: Callable[[], Sequence[int]] = tuple

    @property
    def grace_seconds(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    @property
    def full_name(self) -> str:
        """As a kubelet's messages name a pod."""
        metadata = self.pod["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"

    def now(self) -> str:
        return timestamp(self.clock())


@dataclass(frozen=True)
class Setup:
    words: list[str]
    env: dict[str, str]
    folder: Path
    log: Path
    mounts: Sequence[Mount]
    function: InProcessImage | None
    """For an image that is served inside the control plane."""


def set_up(context: PodContext, spec: dict[str, Any], restart: int) -> Setup:
    """Make its folders too. Raises ImageError, ConfigError."""
    function = context.images.in_process(spec.get("image", ""))
    image_env = {} if function else context.images.environment(spec.get("image", ""))
    mounts = [*container_mounts(spec, context.volumes), _termination_mount(context, spec)]
    asked = container_environment(spec, context.pod, context.lookup)
    hosts = context.hosts()
    env = {name: rewrite(value, mounts) for name, value in asked.items()}
    env |= {name: to_loopback(value, hosts) for name, value in env.items() if name not in told_of_pod(spec)}
    words = [*(spec.get("command") or ()), *(spec.get("args") or ())]
    log = context.folder.log(spec["name"], restart)
    log.parent.mkdir(parents=True, exist_ok=True)
    base = {} if function else {**_base_env(context, spec), **image_env, **context.device_environment(spec["name"])}
    return Setup(
        words=[rewrite(expand(word, asked), mounts) for word in words],
        env={**base, **env},
        folder=_working_folder(context, spec, mounts),
        log=log,
        mounts=mounts,
        function=function,
    )


def process_spec(context: PodContext, spec: dict[str, Any], restart: int, setup: Setup) -> ContainerSpec:
    """Raises StartError for a container without a command."""
    if not spec.get("command"):
        raise StartError(f'the entrypoint of image "{spec.get("image", "")}" is not known here: set command')
    limits = (spec.get("resources") or {}).get("limits") or {}
    return ContainerSpec(
        id=_id(context, spec, restart),
        argv=setup.words,
        env=setup.env,
        cwd=str(setup.folder),
        log=str(setup.log),
        binds=_binds(context),
        memory_bytes=whole(limits.get("memory", 0)),
    )


def execution_spec(context: PodContext, spec: dict[str, Any], restart: int, command: Sequence[str]) -> ContainerSpec:
    """A command that is run beside the container's process, as that one sees the world. Raises what ``set_up`` does."""
    setup = set_up(context, spec, restart)
    execution = f"exec-{uuid4().hex[:12]}"
    return ContainerSpec(
        id=f"{_id(context, spec, restart)}/{execution}",
        argv=[rewrite(word, setup.mounts) for word in command],
        env=setup.env,
        cwd=str(setup.folder),
        log=str(setup.log.with_name(f"{execution}.log")),
        binds=_binds(context),
    )


def _id(context: PodContext, spec: dict[str, Any], restart: int) -> str:
    return f"{context.pod['metadata']['uid']}/{spec['name']}/{restart}"


def _binds(context: PodContext) -> list[list[str]]:
    return context.view.binds(context.hosts()) if context.runtime.isolates else []


def clear_termination_log(context: PodContext, name: str) -> None:
    local = context.folder.termination_log(name)
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_bytes(b"")


def _termination_mount(context: PodContext, spec: dict[str, Any]) -> Mount:
    path = spec.get("terminationMessagePath") or _DEFAULT_TERMINATION_PATH
    return Mount(path, context.folder.termination_log(spec["name"]))


def _working_folder(context: PodContext, spec: dict[str, Any], mounts: Sequence[Mount]) -> Path:
    own = context.folder.container(spec["name"])
    own.mkdir(parents=True, exist_ok=True)
    wanted = spec.get("workingDir")
    if wanted:
        local = Path(rewrite(wanted, mounts))
        return local if local.is_dir() else own
    return own


def _base_env(context: PodContext, spec: dict[str, Any]) -> dict[str, str]:
    """What any program needs; nothing else of the host's environment reaches a container."""
    temporary = context.folder.path / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(context.folder.container(spec["name"])),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TMPDIR": str(temporary),
        "HOSTNAME": context.pod["metadata"]["name"],
    }
