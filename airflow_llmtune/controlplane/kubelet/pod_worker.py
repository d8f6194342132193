"""Runs one pod from its first container to its end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp
from airflow_llmtune.controlplane.kubelet.adoption import resumed_record
from airflow_llmtune.controlplane.kubelet.container_runner import ContainerRunner
from airflow_llmtune.controlplane.kubelet.container_setup import PodContext
from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK, ConfigError, address_of
from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord, Failure, phase, status, waiting
from airflow_llmtune.controlplane.kubelet.restart_backoff import Reminder
from airflow_llmtune.controlplane.kubelet.runtime_client import ContainerProcess, RuntimeLostError
from airflow_llmtune.controlplane.kubelet.storage import disk_usage, excess, has_limits
from airflow_llmtune.controlplane.kubelet.volumes import Volumes

Adopted = Mapping[str, tuple[int, ContainerProcess]]
"""By container: the number of its start and its process, for those that an earlier kubelet started."""

_VOLUME_RETRY_SECONDS = 0.5
_STORAGE_LOOK_SECONDS = 2.0
_DEADLINE = Failure("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
_KUBELET_ERROR = Failure("KubeletError", "The kubelet could not run the pod; its own log says why")


class PodWorker:
    """``run`` ends when all containers have; ``stop`` makes that soon."""

    def __init__(self, context: PodContext, volumes: Volumes, adopted: Adopted, failure: Failure | None) -> None:
        """``failure``: why the pod cannot be run at all, if so."""
        self._context = context
        self._volumes = volumes
        self._adopted = adopted
        spec = context.pod["spec"]
        policy = spec.get("restartPolicy", "Always")
        self._init = [
            # An init container that succeeded is never run again, also under Always.
            self._runner(one, "OnFailure" if policy == "Always" else policy)
            for one in spec.get("initContainers") or ()
        ]
        self._containers = [self._runner(one, policy) for one in spec["containers"]]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._ends_at = math.inf
        self._failure = failure
        context.root_pids = self._root_pids

    def status(self, pod: dict[str, Any]) -> dict[str, Any]:
        init, containers = _records(self._init), _records(self._containers)
        address = address_of(self._context.pod)
        return status(pod, init, containers, self._context.now(), self._effective_failure, address)

    @property
    def has_ended(self) -> bool:
        current = phase(_records(self._init), _records(self._containers), self._effective_failure)
        return current in {"Succeeded", "Failed"}

    async def run(self) -> None:
        if address_of(self._context.pod) != LOOPBACK:
            self._context.publish()  # What its containers are told must be known to a later kubelet first.
        try:
            async with self._watched():
                if self._failure is None and await self._prepare_volumes() and await self._run_init():
                    await self._run_containers()
        except RuntimeLostError:
            await self._give_up(node_lost(self._context.pod))
        self._close()
        self._context.publish()

    async def abort(self) -> None:
        """End a pod that the kubelet itself cannot run, so that nobody waits for it."""
        if self._context.pod["spec"].get("restartPolicy", "Always") == "Always":
            # Its controller makes the next one at once, which is to come no faster than a container is started again.
            await self._sleep(self._context.backoff_base_seconds)
        await self._give_up(_KUBELET_ERROR)
        self._context.publish()

    async def stop(self, grace_seconds: float) -> None:
        """A later call only counts when it leaves less time: each change of a pod that is being deleted makes one."""
        ends_at = asyncio.get_running_loop().time() + grace_seconds
        if ends_at >= self._ends_at:
            return
        self._ends_at = ends_at
        self._stopping.set()
        self._context.publish()  # A pod that is being deleted is not ready any more.
        await asyncio.gather(*(one.stop(grace_seconds) for one in [*self._init, *self._containers]))

    @property
    def _effective_failure(self) -> Failure | None:
        """A pod that is to fail has not done so as long as a container is still running to its end."""
        is_running = any(one.is_running for one in _records([*self._init, *self._containers]))
        return None if is_running else self._failure

    def _root_pids(self) -> list[int]:
        return [pid for one in self._containers if (pid := one.pid) is not None]

    def _runner(self, spec: dict[str, Any], restart_policy: str) -> ContainerRunner:
        has_init = bool(self._context.pod["spec"].get("initContainers"))
        fresh = waiting("PodInitializing" if has_init else "ContainerCreating")
        restart, process = self._adopted.get(spec["name"], (None, None))
        record = resumed_record(spec, self._context.pod, restart_policy, fresh, restart)
        return ContainerRunner(self._context, record, restart_policy, process)

    async def _prepare_volumes(self) -> bool:
        """False when the pod was stopped before everything its volumes refer to was there."""
        reminder = Reminder(self._context.backoff_base_seconds)
        while not self._stopping.is_set():
            try:
                self._context.volumes = self._volumes.prepare()
            except ConfigError as error:
                if reminder.is_due(str(error), time.monotonic()):
                    self._context.tell("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                    self._context.publish()
                await self._sleep(_VOLUME_RETRY_SECONDS)
            else:
                return True
        return False

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _run_init(self) -> bool:
        for runner in self._init:
            await self._run_all([runner])
            if runner.record.exit_code != 0 or self._stopping.is_set():
                return False
        return True

    async def _run_containers(self) -> None:
        """Sidecars served in-process learn when the real containers have ended."""
        functions = asyncio.create_task(self._run_all([one for one in self._containers if self._is_function(one)]))
        try:
            await self._run_all([one for one in self._containers if not self._is_function(one)])
            self._context.others_ended.set()
            await functions
        finally:
            functions.cancel()

    async def _run_all(self, runners: Sequence[ContainerRunner]) -> None:
        tasks = [asyncio.create_task(one.run()) for one in runners]
        self._tasks += tasks
        await asyncio.gather(*tasks)

    def _is_function(self, runner: ContainerRunner) -> bool:
        return self._context.images.in_process(runner.record.spec.get("image", "")) is not None

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """With its deadline and its limits of storage, if it has any, in sight."""
        spec = self._context.pod["spec"]
        seconds = spec.get("activeDeadlineSeconds")
        watches = [self._fail_after(seconds)] if seconds is not None else []
        watches += [self._evict_beyond_limits()] if has_limits(spec) else []
        tasks = [asyncio.create_task(watch) for watch in watches]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _evict_beyond_limits(self) -> None:
        spec, folder = self._context.pod["spec"], self._context.folder
        message = ""
        while not message:
            await asyncio.sleep(_STORAGE_LOOK_SECONDS)
            message = await asyncio.to_thread(excess, spec, folder, disk_usage)
        self._failure = Failure("Evicted", message)
        self._context.tell("Warning", "Evicted", message)
        await self.stop(0)

    async def _fail_after(self, seconds: float) -> None:
        since = (self._context.pod.get("status") or {}).get("startTime")
        passed = (self._context.clock() - parse_timestamp(since)).total_seconds() if since else 0.0
        await asyncio.sleep(seconds - passed)
        self._failure = _DEADLINE
        self._context.tell("Warning", _DEADLINE.reason, _DEADLINE.message)
        await self.stop(self._context.grace_seconds)

    async def _give_up(self, failure: Failure) -> None:
        """Fail with this, as soon as nothing runs any more."""
        self._failure = failure
        await self.stop(0)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close(self) -> None:
        """A pod that was stopped has failed, also when some containers never ran."""
        for one in [*self._init, *self._containers] if self._failure is not None else ():
            one.finish()
        if self._failure is None and self._stopping.is_set() and not self.has_ended:
            self._failure = Failure("Terminated", "Pod was stopped before its containers had ended")


def node_lost(pod: dict[str, Any]) -> Failure:
    metadata, node = pod["metadata"], pod["spec"].get("nodeName", "")
    text = f"Node {node} which was running pod {metadata['namespace']}/{metadata['name']} has lost its processes"
    return Failure("NodeLost", text, disruption="TerminationByKubelet")


def _records(runners: Sequence[ContainerRunner]) -> list[ContainerRecord]:
    return [runner.record for runner in runners]
