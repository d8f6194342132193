"""Runs one pod from its first container to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.kubelet.container_runner import ContainerRunner, PodContext
from airflow_llmtune.controlplane.kubelet.environment import ConfigError
from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord, Failure, phase, status, waiting
from airflow_llmtune.controlplane.kubelet.volumes import Volumes

_VOLUME_RETRY_SECONDS = 0.5
_DEADLINE = Failure("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


class PodWorker:
    """``run`` ends when all containers have; ``stop`` makes that soon."""

    def __init__(self, context: PodContext, volumes: Volumes) -> None:
        self._context = context
        self._volumes = volumes
        spec = context.pod["spec"]
        policy = spec.get("restartPolicy", "Always")
        self._init = [
            # An init container that succeeded is never run again, also under Always.
            self._runner(one, "OnFailure" if policy == "Always" else policy)
            for one in spec.get("initContainers") or ()
        ]
        self._containers = [self._runner(one, policy) for one in spec["containers"]]
        self._stopping = asyncio.Event()
        self._failure: Failure | None = None

    def status(self, pod: dict[str, Any]) -> dict[str, Any]:
        init, containers = _records(self._init), _records(self._containers)
        return status(pod, init, containers, self._context.now(), self._failure)

    def record(self, container_name: str) -> ContainerRecord | None:
        runners = [*self._init, *self._containers]
        return next((one.record for one in runners if one.record.name == container_name), None)

    @property
    def has_ended(self) -> bool:
        current = phase(_records(self._init), _records(self._containers), self._failure)
        return current in {"Succeeded", "Failed"}

    async def run(self) -> None:
        deadline = self._context.pod["spec"].get("activeDeadlineSeconds")
        watcher = asyncio.create_task(self._fail_after(deadline)) if deadline is not None else None
        try:
            if await self._prepare_volumes() and await self._run_init():
                await self._run_containers()
            self._close()
        finally:
            if watcher is not None:
                watcher.cancel()
        self._context.publish()

    async def abort(self) -> None:
        """End a pod that the kubelet itself cannot run, so that nobody waits for it."""
        self._failure = Failure("KubeletError", "The kubelet could not run the pod; its own log says why")
        await self.stop(0)
        self._context.publish()

    async def stop(self, grace_seconds: float) -> None:
        self._stopping.set()
        await asyncio.gather(*(one.stop(grace_seconds) for one in [*self._init, *self._containers]))

    def _runner(self, spec: dict[str, Any], restart_policy: str) -> ContainerRunner:
        has_init = bool(self._context.pod["spec"].get("initContainers"))
        record = ContainerRecord(spec, waiting("PodInitializing" if has_init else "ContainerCreating"))
        return ContainerRunner(self._context, record, restart_policy)

    async def _prepare_volumes(self) -> bool:
        """False when the pod was stopped before everything its volumes refer to was there."""
        complaint = ""
        while not self._stopping.is_set():
            try:
                self._context.volumes = self._volumes.prepare()
            except ConfigError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    self._context.tell("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                    self._context.publish()
                await self._sleep(_VOLUME_RETRY_SECONDS)
            else:
                return True
        return False

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _run_init(self) -> bool:
        for runner in self._init:
            await runner.run()
            if runner.record.exit_code != 0 or self._stopping.is_set():
                return False
        return True

    async def _run_containers(self) -> None:
        """Sidecars served in-process learn when the real containers have ended."""
        functions = [one for one in self._containers if self._is_function(one)]
        processes = [one for one in self._containers if not self._is_function(one)]
        tasks = [asyncio.create_task(one.run()) for one in functions]
        try:
            await asyncio.gather(*(one.run() for one in processes))
            self._context.others_ended.set()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _is_function(self, runner: ContainerRunner) -> bool:
        return self._context.images.in_process(runner.record.spec.get("image", "")) is not None

    async def _fail_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._failure = _DEADLINE
        self._context.tell("Warning", _DEADLINE.reason, _DEADLINE.message)
        await self.stop(float(self._context.pod["spec"].get("terminationGracePeriodSeconds", 30)))

    def _close(self) -> None:
        """A pod that was stopped has failed, also when some containers never ran."""
        if self._failure is None and self._stopping.is_set() and not self.has_ended:
            self._failure = Failure("Terminated", "Pod was stopped before its containers had ended")


def _records(runners: Sequence[ContainerRunner]) -> list[ContainerRecord]:
    return [runner.record for runner in runners]
