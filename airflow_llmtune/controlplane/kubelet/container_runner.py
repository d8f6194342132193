"""Runs one container: start, wait, and start again as the restart policy says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.clock import timestamp
from airflow_llmtune.controlplane.kubelet.adoption import restarts
from airflow_llmtune.controlplane.kubelet.container_setup import (
    PodContext,
    Setup,
    clear_termination_log,
    process_spec,
    set_up,
)
from airflow_llmtune.controlplane.kubelet.environment import ConfigError
from airflow_llmtune.controlplane.kubelet.images import ImageError
from airflow_llmtune.controlplane.kubelet.in_process import InProcessContainer, InProcessImage
from airflow_llmtune.controlplane.kubelet.live_container import LiveContainer
from airflow_llmtune.controlplane.kubelet.logs import read
from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord, State, running, terminated, waiting
from airflow_llmtune.controlplane.kubelet.probe_rules import comes_up_at_once, is_ready_at_once
from airflow_llmtune.controlplane.kubelet.restart_backoff import Reminder, backoff_seconds, go_duration, is_forgiven
from airflow_llmtune.controlplane.kubelet.runtime.log_file import LogFile
from airflow_llmtune.controlplane.kubelet.runtime_client import ContainerProcess, StartError

_LONGEST_MESSAGE_BYTES = 4096
_FALLBACK_LINES, _FALLBACK_BYTES = 80, 2048
_CONFIG_RETRY_SECONDS = 0.5
_START_ERROR_EXIT_CODE = 128
_KILLED_EXIT_CODE = 137
_LOST = "The container could not be located when the pod was terminated"

log = logging.getLogger(__name__)


class ContainerRunner:
    """``adopted``: the container runs already, started by an earlier kubelet."""

    def __init__(
        self, context: PodContext, record: ContainerRecord, restart_policy: str, adopted: ContainerProcess | None
    ) -> None:
        self._context = context
        self.record = record
        self._restart_policy = restart_policy
        self._adopted = None if adopted is None else self._live(adopted)
        self._container = self._adopted
        self._forgiven = 0
        """The number of the start before which ends do not count any more."""
        self._reminder = Reminder(context.backoff_base_seconds)
        self._function: asyncio.Task[int] | None = None
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return None if self._container is None else self._container.process.pid

    async def run(self) -> None:
        """Until the container has ended for good. Raises RuntimeLostError."""
        try:
            if not self.record.is_final and self._adopted is None:
                await self._back_off()  # An earlier kubelet may have left it at that.
            while not self.record.is_final and not self._stopping.is_set():
                await self._run_once()
                if not self.record.is_final and not self._stopping.is_set():
                    await self._back_off()
        finally:
            self.finish()

    async def stop(self, grace_seconds: float) -> None:
        """End it and do not start it again; ``run`` returns soon after."""
        self._stopping.set()
        if self._function is not None:
            self._function.cancel()
        async with self._starting:  # Also one that is just being started gets its time to end.
            container = self._container
        if container is not None:
            await container.stop(grace_seconds)

    def _live(self, process: ContainerProcess) -> LiveContainer:
        return LiveContainer(self._context, self.record, process, restarts=self._restart_policy != "Never")

    def _restarts(self) -> bool:
        is_unhealthy = self._container is not None and self._container.is_unhealthy
        code = _KILLED_EXIT_CODE if is_unhealthy else self.record.exit_code
        return not self._stopping.is_set() and restarts(self._restart_policy, code)

    def finish(self) -> None:
        """Whatever became of it, it will not be started again."""
        if self.record.exit_code is None:
            now = self._context.now()
            started = self.record.state.get("running", {}).get("startedAt")
            self.record.state = terminated(
                _KILLED_EXIT_CODE,
                started or now,
                now,
                reason="ContainerStatusUnknown",
                message=_LOST if started else "",
            )
        self.record.is_final = True

    async def _run_once(self) -> None:
        """To its end, or until it is worth another try when something it needs is not there."""
        started = self._context.now()
        try:
            state = await self._execute()
        except ImageError as error:
            await self._wait_for_image(str(error))
            return
        except ConfigError as error:
            await self._wait_for_config(str(error))
            return
        except StartError as error:
            now = self._context.now()
            state = terminated(_START_ERROR_EXIT_CODE, started, now, reason="StartError", message=str(error))
            self._context.tell("Warning", "Failed", f"Error: {error}")
        self.record.state = state
        self.record.is_final = not self._restarts()
        self._context.publish()
        if self._container is not None:
            self._container.process.forget()
            self._container = None

    async def _execute(self) -> State:
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            return await self._attend(adopted)
        clear_termination_log(self._context, self.record.name)
        setup = set_up(self._context, self.record.spec, self.record.restart_count)
        if setup.function is not None:
            return await self._call(setup.function, setup)
        await self._context.runtime.be_ready()
        spec = process_spec(self._context, self.record.spec, self.record.restart_count, setup)
        async with self._starting:
            is_late = self._stopping.is_set()
            self._container = self._live(await self._context.runtime.start(spec))
        if is_late:  # stop() has not waited for it.
            await self._container.stop(0)
        self._started()
        return await self._attend(self._container)

    async def _attend(self, container: LiveContainer) -> State:
        if not self.record.is_running:
            self._started()
        started = self.record.state["running"]["startedAt"]
        had_ended = container.process.has_ended
        ended = await container.wait()
        # One that was short has ended before its start was noted.
        finished = max(started, timestamp(ended.finished)) if had_ended else self._context.now()
        message = ended.message or await asyncio.to_thread(self._termination_message, ended.code)
        return terminated(ended.code, started, finished, reason=ended.reason, message=message)

    async def _call(self, function: InProcessImage, setup: Setup) -> State:
        output = LogFile(setup.log)
        container = InProcessContainer(
            tuple(setup.words),
            setup.env,
            output.write,
            self._context.others_ended,
            self._context.root_pids,
            self._context.pod["metadata"]["namespace"],
        )
        self._function = asyncio.ensure_future(function(container))
        self._started(is_function=True)
        started = self._context.now()
        try:
            code = await self._function
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            code = _KILLED_EXIT_CODE
        except Exception:
            log.exception("in-process container %s failed", self.record.name)
            code = 1
        finally:
            self._function = None
            output.close()
        return terminated(code, started, self._context.now(), message=self._termination_message(code))

    def _started(self, *, is_function: bool = False) -> None:
        """A function has no probes and no hooks."""
        self.record.state = running(self._context.now())
        self.record.is_started = is_function or comes_up_at_once(self.record.spec)
        self.record.is_ready = is_function or (self.record.is_started and is_ready_at_once(self.record.spec))
        self._context.tell("Normal", "Started", f"Started container {self.record.name}")
        self._context.publish()

    async def _wait_for_image(self, message: str) -> None:
        """Images are fixed when the control plane starts, so there is nothing to wait for but the pod's end."""
        backs_off = f'Back-off pulling image "{self.record.spec["image"]}"'
        for reason, text, event in (
            ("ErrImagePull", message, ("Warning", "Failed", f"Failed to pull image: {message}")),
            ("ImagePullBackOff", f"{backs_off}: {message}", ("Normal", "BackOff", backs_off)),
        ):
            self.record.state = waiting(reason, text)
            self._context.tell(*event)
            self._context.publish()
            await asyncio.sleep(0)
        await self._stopping.wait()

    async def _wait_for_config(self, message: str) -> None:
        if self._reminder.is_due(message, time.monotonic()):
            self._context.tell("Warning", "Failed", f"Error: {message}")
        if self.record.state != waiting("CreateContainerConfigError", message):
            self.record.state = waiting("CreateContainerConfigError", message)
            self._context.publish()
        await self._sleep(_CONFIG_RETRY_SECONDS)

    async def _back_off(self) -> None:
        if self.record.is_backing_off:
            self.record.state = self.record.last_state
        if "terminated" not in self.record.state:
            return
        if is_forgiven(self.record.state):
            self._forgiven = self.record.restart_count
        delay = backoff_seconds(self.record.restart_count - self._forgiven, self._context.backoff_base_seconds)
        self.record.last_state = self.record.state
        if delay > 0:
            name, pod = self.record.name, self._context.full_name
            message = f"back-off {go_duration(delay)} restarting failed container={name} pod={pod}"
            self.record.state = waiting("CrashLoopBackOff", message)
            self._context.tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {pod}")
            self._context.publish()
            await self._sleep(delay)
        self.record.restart_count += 1

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _termination_message(self, code: int) -> str:
        message = b""
        with (
            contextlib.suppress(FileNotFoundError),
            self._context.folder.termination_log(self.record.name).open("rb") as file,
        ):
            message = file.read(_LONGEST_MESSAGE_BYTES)
        falls_back = self.record.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and code != 0 and falls_back:
            path = self._context.folder.log(self.record.name, self.record.restart_count)
            message = read(path, LogOptions(tail_lines=_FALLBACK_LINES))[-_FALLBACK_BYTES:]
        return message.decode(errors="replace")
