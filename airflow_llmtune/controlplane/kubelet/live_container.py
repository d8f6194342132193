"""A container that runs: its hooks and probes, and its end in good order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp
from airflow_llmtune.controlplane.kubelet.container_setup import PodContext
from airflow_llmtune.controlplane.kubelet.environment import address_of
from airflow_llmtune.controlplane.kubelet.execution import execute
from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord
from airflow_llmtune.controlplane.kubelet.probe_actions import ActionError, Actions
from airflow_llmtune.controlplane.kubelet.probe_rules import Probe, has_probes, is_ready_at_once
from airflow_llmtune.controlplane.kubelet.probing import Probing
from airflow_llmtune.controlplane.kubelet.runtime_client import ContainerProcess, Exit

_LEAST_GRACE_SECONDS = 2.0
"""What is left for a process at least when its hook has taken long."""
_HOOK_SECONDS = 24 * 3600.0


class LiveContainer:
    def __init__(
        self, context: PodContext, record: ContainerRecord, process: ContainerProcess, *, restarts: bool
    ) -> None:
        """``restarts``: whether the container is started again when it is ended for a probe."""
        self._context = context
        self._record = record
        self._restarts = restarts
        self.process = process
        self.is_unhealthy = False
        """It is ended for a probe or a hook that failed."""
        self._is_leaving = False
        self._attention: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._pre_stop: asyncio.Task[bool] | None = None
        self._actions = Actions(record.spec, address_of(context.pod), self._execute)
        # One that an earlier kubelet started has run for a while.
        since = record.state.get("running", {}).get("startedAt")
        age = (context.clock() - parse_timestamp(since)).total_seconds() if since else 0.0
        self._started = asyncio.get_running_loop().time() - age

    async def wait(self) -> Exit:
        """Returns when nothing of it is left; raises RuntimeLostError."""
        if self._needs_attention and not self._is_leaving:
            self._attention = asyncio.create_task(self._attend())
        try:
            return await self.process.wait()
        finally:
            await _end_all(self._attention, self._ending, self._pre_stop)

    async def stop(self, grace_seconds: float) -> None:
        """Its hook first, then the process; a later call counts when it leaves less time."""
        if not self._is_leaving:
            self._is_leaving = True
            if self._attention is not None:
                self._attention.cancel()
            if grace_seconds > 0 and not self.process.has_ended:
                self._context.tell("Normal", "Killing", f"Stopping container {self._record.name}")
        await self._end(grace_seconds)

    @property
    def _lifecycle(self) -> dict[str, Any]:
        return self._record.spec.get("lifecycle") or {}

    @property
    def _needs_attention(self) -> bool:
        return has_probes(self._record.spec) or "postStart" in self._lifecycle

    async def _attend(self) -> None:
        hook = self._lifecycle.get("postStart")
        if hook and not self._record.is_started:
            if not await self._run_hook("PostStart", hook):
                self._fail("FailedPostStartHook", self._context.grace_seconds)
                return
            if not self._record.spec.get("startupProbe"):
                self._record.is_started = True
                self._record.is_ready = is_ready_at_once(self._record.spec)
                self._context.publish()
        publish, tell, fail = self._context.publish, self._context.tell, self._fail_probe
        await Probing(self._record, self._actions, self._started, publish=publish, tell=tell, fail=fail).run()

    def _fail_probe(self, probe: Probe) -> None:
        grace = self._context.grace_seconds if probe.grace_seconds is None else probe.grace_seconds
        then = ", will be restarted" if self._restarts else ""
        self._fail(f"Container {self._record.name} failed {probe.kind} probe{then}", grace)

    def _fail(self, why: str, grace_seconds: float) -> None:
        self.is_unhealthy = True
        self._context.tell("Normal", "Killing", why)
        self._ending = asyncio.create_task(self._end(grace_seconds))

    async def _end(self, grace_seconds: float) -> None:
        hook = self._lifecycle.get("preStop")
        if hook and grace_seconds > 0 and not self.process.has_ended:
            loop = asyncio.get_running_loop()
            ends_at = loop.time() + grace_seconds
            self._pre_stop = self._pre_stop or asyncio.create_task(self._run_hook("PreStop", hook))
            await asyncio.wait({self._pre_stop}, timeout=grace_seconds)
            grace_seconds = max(ends_at - loop.time(), _LEAST_GRACE_SECONDS)
        await self.process.stop(grace_seconds)

    async def _run_hook(self, name: str, hook: dict[str, Any]) -> bool:
        """A request has done its work whatever it is answered."""
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
            return True
        try:
            result = await self._actions.perform(hook, _HOOK_SECONDS)
            is_done = result.is_success or result.is_answer
        except ActionError:
            is_done = False
        if not is_done:
            self._context.tell("Warning", f"Failed{name}Hook", f"{name}Hook failed")
        return is_done

    def _execute(self, command: list[str], seconds: float) -> Coroutine[Any, Any, tuple[int, str]]:
        return execute(self._context, self._record.spec, self._record.restart_count, command, seconds)


async def _end_all(*begun: asyncio.Task[Any] | None) -> None:
    """A failure of their own, if they had one, is the pod's."""
    tasks = [task for task in begun if task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
