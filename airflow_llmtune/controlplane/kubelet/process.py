"""One container as a process group: start, wait, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_llmtune.controlplane.kubelet import reaper


class StartError(Exception):
    """The command could not be executed."""


class ContainerProcess:
    """The first process of a container and all that come from it."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self._process = process
        self._mark = mark

    @classmethod
    async def start(
        cls, command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path, mark: str
    ) -> ContainerProcess:
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**env, reaper.MARK: mark},
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(_start_message(command[0], error)) from error
            except ValueError as error:  # A NUL byte in an argument or variable.
                raise StartError(f"exec: {command[0]!r}: {error}") from error
        return cls(process, mark)

    async def wait(self) -> int:
        """The exit code as a shell shows it; whatever the process left behind is killed."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(reaper.kill_marked, self._mark)
        return 128 - code if code < 0 else code

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the group, after the grace period SIGKILL; ``wait`` returns soon after."""
        if grace_seconds > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self._process.wait()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # start_new_session made the process the leader of a group of its own number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _start_message(program: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        where = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        return f'exec: "{program}": {where}'
    return f'exec: "{program}": {error.strerror}'
