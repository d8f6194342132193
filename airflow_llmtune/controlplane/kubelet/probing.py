"""The probes of one start of a container, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord
from airflow_llmtune.controlplane.kubelet.probe_actions import ActionError, Actions
from airflow_llmtune.controlplane.kubelet.probe_rules import Probe, Tally, is_ready_at_once, probe_of

Tell = Callable[[str, str, str], None]


class Probing:
    """``run`` writes what it finds to the record, until it is cancelled or the container has failed.

    :param started: when the container was started, by the loop's clock
    :param fail: ends the container for the probe that it failed
    """

    def __init__(
        self,
        record: ContainerRecord,
        actions: Actions,
        started: float,
        *,
        publish: Callable[[], None],
        tell: Tell,
        fail: Callable[[Probe], None],
    ) -> None:
        self._record = record
        self._actions = actions
        self._started = started
        self._publish = publish
        self._tell = tell
        self._fail = fail

    async def run(self) -> None:
        spec = self._record.spec
        startup, readiness, liveness = (probe_of(spec, kind) for kind in ("startup", "readiness", "liveness"))
        if startup is not None and not self._record.is_started:
            await self._repeat(startup, lambda is_up: self._note_start(startup, is_up))
            if not self._record.is_started:
                return
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._repeat(readiness, self._note_readiness))
            if liveness is not None:
                group.create_task(self._repeat(liveness, lambda is_alive: self._note_life(liveness, is_alive)))

    def _note_start(self, probe: Probe, is_up: bool) -> bool:
        if is_up:
            self._record.is_started = True
            self._record.is_ready = is_ready_at_once(self._record.spec)
            self._publish()
        else:
            self._fail(probe)
        return True

    def _note_readiness(self, is_ready: bool) -> bool:
        if is_ready is not self._record.is_ready:
            self._record.is_ready = is_ready
            self._publish()
        return False

    def _note_life(self, probe: Probe, is_alive: bool) -> bool:
        if not is_alive:
            self._fail(probe)
        return not is_alive

    async def _repeat(self, probe: Probe, note: Callable[[bool], bool]) -> None:
        """``note`` hears each verdict, and tells whether it was the last one."""
        loop, tally = asyncio.get_running_loop(), Tally(probe)
        due = self._started + probe.initial_delay_seconds
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = loop.time() + probe.period_seconds
            is_success = await self._look(probe)
            verdict = None if is_success is None else tally.add(is_success)
            if verdict is not None and note(verdict):
                return

    async def _look(self, probe: Probe) -> bool | None:
        """None when the probe itself went wrong."""
        name = probe.kind.capitalize()
        try:
            result = await self._actions.perform(probe.spec, probe.timeout_seconds)
        except ActionError as error:
            self._tell("Warning", "Unhealthy", f"{name} probe errored and resulted in unknown state: {error}")
            return None
        if result.is_warning:
            self._tell("Warning", "ProbeWarning", f"{name} probe warning: {result.output}")
        elif not result.is_success:
            self._tell("Warning", "Unhealthy", f"{name} probe failed: {result.output}")
        return result.is_success
