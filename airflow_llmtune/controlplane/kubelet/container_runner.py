"""Runs one container: start, wait, and start again as the restart policy says."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.kubelet.environment import (
    ConfigError,
    Lookup,
    container_environment,
    expand,
    to_loopback,
)
from airflow_llmtune.controlplane.kubelet.images import ImageError, Images
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer, InProcessImage
from airflow_llmtune.controlplane.kubelet.logs import PodFolder, read
from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord, running, terminated, waiting
from airflow_llmtune.controlplane.kubelet.process import ContainerProcess, StartError
from airflow_llmtune.controlplane.kubelet.volumes import Mount, container_mounts, rewrite

_DEFAULT_TERMINATION_PATH = "/dev/termination-log"
_LONGEST_BACKOFF_SECONDS = 300.0
_MOST_DOUBLINGS = 20
_LONGEST_MESSAGE_BYTES = 4096
_FALLBACK_LINES, _FALLBACK_BYTES = 80, 2048
_CONFIG_RETRY_SECONDS = 0.5
_START_ERROR_EXIT_CODE = 128
_KILLED_EXIT_CODE = 137

log = logging.getLogger(__name__)


@dataclass
class PodContext:
    """What all containers of a pod share."""

    pod: dict[str, Any]
    folder: PodFolder
    volumes: dict[str, Path]
    images: Images
    lookup: Lookup
    service_hosts: Callable[[], set[str]]
    clock: Clock
    mark: str
    backoff_base_seconds: float
    publish: Callable[[], None]
    """The container's state changed: report the pod's status."""
    tell: Callable[[str, str, str], None]
    """Record an event: type, reason, message."""
    others_ended: asyncio.Event

    def now(self) -> str:
        return timestamp(self.clock())


class ContainerRunner:
    def __init__(self, context: PodContext, record: ContainerRecord, restart_policy: str) -> None:
        self._context = context
        self.record = record
        self._restart_policy = restart_policy
        self._process: ContainerProcess | None = None
        self._function: asyncio.Task[int] | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until the container has ended for good."""
        while not self._stopping.is_set():
            if await self._run_once() and not self._restarts():
                break
            if not self._stopping.is_set():
                await self._back_off()
        self._finish()

    async def stop(self, grace_seconds: float) -> None:
        """End it and do not start it again; ``run`` returns soon after."""
        self._stopping.set()
        if self._function is not None:
            self._function.cancel()
        if self._process is not None:
            await self._process.stop(grace_seconds)

    def _restarts(self) -> bool:
        if self._stopping.is_set():
            return False
        return self._restart_policy == "Always" or (self._restart_policy == "OnFailure" and self.record.exit_code != 0)

    def _finish(self) -> None:
        if self.record.exit_code is None:
            now = self._context.now()
            self.record.state = terminated(_KILLED_EXIT_CODE, now, now, reason="ContainerStatusUnknown")
        self.record.is_final = True

    async def _run_once(self) -> bool:
        """Whether it ran or at least tried to; False while something it needs is not there."""
        started = self._context.now()
        try:
            message = ""
            code, reason = await self._execute()
        except ImageError as error:
            await self._wait_for_image(str(error))
            return True
        except ConfigError as error:
            await self._wait_for_config(str(error))
            return False
        except StartError as error:
            code, reason, message = _START_ERROR_EXIT_CODE, "StartError", str(error)
            self._context.tell("Warning", "Failed", f"Error: {error}")
        message = message or self._termination_message(code)
        self.record.state = terminated(code, started, self._context.now(), reason=reason, message=message)
        self.record.is_final = not self._restarts()
        self._context.publish()
        return True

    async def _execute(self) -> tuple[int, str]:
        spec, context = self.record.spec, self._context
        function = context.images.in_process(spec.get("image", ""))
        image_env = {} if function else context.images.environment(spec.get("image", ""))
        mounts = [*container_mounts(spec, context.volumes), self._termination_mount()]
        asked = container_environment(spec, context.pod, context.lookup)
        hosts = context.service_hosts()
        env = {name: to_loopback(rewrite(value, mounts), hosts) for name, value in asked.items()}
        words = [
            rewrite(expand(word, asked), mounts) for word in [*(spec.get("command") or ()), *(spec.get("args") or ())]
        ]
        log_path = self._log_path()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if function is not None:
            return await self._call(function, words, env, log_path)
        return await self._spawn(words, {**self._base_env(), **image_env, **env}, mounts, log_path)

    async def _spawn(
        self, words: Sequence[str], env: dict[str, str], mounts: Sequence[Mount], log_path: Path
    ) -> tuple[int, str]:
        spec = self.record.spec
        if not spec.get("command"):
            raise StartError(f'the entrypoint of image "{spec.get("image", "")}" is not known here: set command')
        mark = f"{self._context.mark}/{self.record.name}/{self.record.restart_count}"
        self._process = await ContainerProcess.start(words, env, self._working_folder(mounts), log_path, mark)
        if self._stopping.is_set():  # stop() came while the process was being started.
            await self._process.stop(0)
        self._started()
        code = await self._process.wait()
        self._process = None
        return code, ""

    async def _call(
        self, function: InProcessImage, words: Sequence[str], env: dict[str, str], log_path: Path
    ) -> tuple[int, str]:
        with log_path.open("ab", buffering=0) as output:
            container = InProcessContainer(
                tuple(words), env, lambda text: _write(output, text), self._context.others_ended
            )
            self._function = asyncio.ensure_future(function(container))
            self._started()
            try:
                return await self._function, ""
            except asyncio.CancelledError:
                if not self._stopping.is_set():
                    raise
                return _KILLED_EXIT_CODE, "Error"
            except Exception:
                log.exception("in-process container %s failed", self.record.name)
                return 1, "Error"
            finally:
                self._function = None

    def _started(self) -> None:
        self.record.state = running(self._context.now())
        self._context.tell("Normal", "Started", f"Started container {self.record.name}")
        self._context.publish()

    async def _wait_for_image(self, message: str) -> None:
        """Images are fixed when the control plane starts, so there is nothing to wait for but the pod's end."""
        self._context.tell("Warning", "Failed", f"Failed to pull {message}")
        for reason, text in (("ErrImagePull", message), ("ImagePullBackOff", f"Back-off pulling: {message}")):
            self.record.state = waiting(reason, text)
            self._context.publish()
            await asyncio.sleep(0)
        await self._stopping.wait()

    async def _wait_for_config(self, message: str) -> None:
        if self.record.state != waiting("CreateContainerConfigError", message):
            self.record.state = waiting("CreateContainerConfigError", message)
            self._context.tell("Warning", "Failed", f"Error: {message}")
            self._context.publish()
        await self._sleep(_CONFIG_RETRY_SECONDS)

    async def _back_off(self) -> None:
        """The first restart comes at once, later ones after 10 s, 20 s, … as a kubelet waits."""
        if "terminated" not in self.record.state:
            return
        count = self.record.restart_count
        doublings = min(max(count - 1, 0), _MOST_DOUBLINGS)
        delay = min(self._context.backoff_base_seconds * 2**doublings, _LONGEST_BACKOFF_SECONDS)
        self.record.last_state = self.record.state
        if count > 0:
            message = f"back-off {delay:g}s restarting failed container={self.record.name}"
            self.record.state = waiting("CrashLoopBackOff", message)
            self._context.tell("Warning", "BackOff", f"Back-off restarting failed container {self.record.name}")
            self._context.publish()
            await self._sleep(delay)
        self.record.restart_count += 1

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _log_path(self) -> Path:
        return self._context.folder.log(self.record.name, self.record.restart_count)

    def _termination_mount(self) -> Mount:
        path = self.record.spec.get("terminationMessagePath") or _DEFAULT_TERMINATION_PATH
        local = self._context.folder.termination_log(self.record.name)
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(b"")
        return Mount(path, local)

    def _termination_message(self, code: int) -> str:
        message = read(self._context.folder.termination_log(self.record.name), limit_bytes=_LONGEST_MESSAGE_BYTES)
        falls_back = self.record.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and code != 0 and falls_back:
            message = read(self._log_path(), tail_lines=_FALLBACK_LINES)[-_FALLBACK_BYTES:]
        return message.decode(errors="replace")

    def _working_folder(self, mounts: Sequence[Mount]) -> Path:
        own = self._context.folder.container(self.record.name)
        own.mkdir(parents=True, exist_ok=True)
        wanted = self.record.spec.get("workingDir")
        if wanted:
            local = Path(rewrite(wanted, mounts))
            return local if local.is_dir() else own
        return own

    def _base_env(self) -> dict[str, str]:
        """What any program needs; nothing else of the host's environment reaches a container."""
        home = self._context.folder.container(self.record.name)
        temporary = self._context.folder.path / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        return {
            "HOME": str(home),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "TMPDIR": str(temporary),
            "HOSTNAME": self._context.pod["metadata"]["name"],
        }


def _write(output: Any, text: bytes) -> None:
    output.write(text)
