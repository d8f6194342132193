"""Commands that are run in a container that runs already: for probes and hooks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from signal import SIGKILL
from typing import Any

from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.kubelet.container_setup import PodContext, execution_spec
from airflow_llmtune.controlplane.kubelet.environment import ConfigError
from airflow_llmtune.controlplane.kubelet.images import ImageError
from airflow_llmtune.controlplane.kubelet.logs import read
from airflow_llmtune.controlplane.kubelet.probe_actions import ActionError
from airflow_llmtune.controlplane.kubelet.runtime.log_file import index_of, rotated
from airflow_llmtune.controlplane.kubelet.runtime.protocol import ContainerSpec
from airflow_llmtune.controlplane.kubelet.runtime_client import Exit, RuntimeLostError, StartError

_LONGEST_OUTPUT_BYTES = 10 * 1024


async def execute(
    context: PodContext, container: dict[str, Any], restart: int, command: list[str], seconds: float
) -> tuple[int, str]:
    """Exit code and output. Raises ActionError, and TimeoutError when it is killed with all that it started."""
    try:
        spec = execution_spec(context, container, restart, command)
    except (ImageError, ConfigError) as error:
        raise ActionError(str(error)) from None
    log = Path(spec.log)
    try:
        ended = await _run(context, spec, seconds)
        return ended.code, await asyncio.to_thread(_output, log)
    except (StartError, RuntimeLostError) as error:
        raise ActionError(str(error)) from None
    finally:
        for file in (log, index_of(log)):
            file.unlink(missing_ok=True)
            rotated(file).unlink(missing_ok=True)


async def _run(context: PodContext, spec: ContainerSpec, seconds: float) -> Exit:
    try:
        async with asyncio.timeout(seconds):
            process = await context.runtime.start(spec)
            return await process.wait()
    finally:  # Also one that is still being started.
        context.runtime.signal(spec.id, SIGKILL)
        context.runtime.forget(spec.id)


def _output(log: Path) -> str:
    return read(log, LogOptions(limit_bytes=_LONGEST_OUTPUT_BYTES)).decode(errors="replace")
