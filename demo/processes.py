"""Starts the services of the demo and leaves none of them, nor anything they started, behind."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 8.0
LOG_TAIL_LINES = 25


class ServiceError(Exception):
    """A service did not start, or ended while it was needed."""


class Processes:
    """
    A set of services with one log file each; leaving the block ends them and all their descendants.

    Airflow's services start processes in sessions of their own. On Linux this process therefore asks to inherit the
    orphans of its descendants, so that it finds them all, also those whose parent has died.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: dict[str, tuple[Sequence[str], Mapping[str, str], str | None]] = {}

    def __enter__(self) -> Self:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], user: str | None = None) -> None:
        """
        Start a service.

        :param user: run it as this user of the machine; only root may.
        """
        self._starts[name] = command, env, user
        self.restart(name)

    def restart(self, name: str) -> None:
        """Start a service that has ended, just as it was started first."""
        command, env, user = self._starts[name]
        with self.log_path(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else (),
            )

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str], user: str | None = None) -> None:
        """
        Run a command to its end.

        :raises ServiceError: it failed; with the last lines that it printed.
        """
        self.start(name, command, env, user)
        code = self._running[name].wait()
        if code != 0:
            raise ServiceError(self._ended(name, code))
        del self._running[name]

    def family(self, name: str) -> list[psutil.Process]:
        """Return the service's own process, and all that it has started; none of a service that was let go."""
        if name not in self._running:
            return []
        service = psutil.Process(self._running[name].pid)
        return [service, *service.children(recursive=True)]

    def let_go(self, name: str) -> subprocess.Popen[bytes]:
        """Return the service's process, which may end from now on without being missed."""
        return self._running.pop(name)

    def check(self) -> None:
        """
        Make sure that all services run.

        :raises ServiceError: one has ended; with the last lines that it printed.
        """
        for name, process in self._running.items():
            if (code := process.poll()) is not None:
                raise ServiceError(self._ended(name, code))

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def stop(self) -> None:
        """End all services, politely first, then whatever is left of them and their descendants."""
        family = psutil.Process().children(recursive=True)
        for service in self._running.values():
            _signal_group(service.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
        # Looked up again: a service may have started something, or left an orphan, while it was ending.
        for process in {*alive, *psutil.Process().children(recursive=True)}:
            _kill(process)
        psutil.wait_procs(alive, timeout=GRACE_SECONDS)
        for service in self._running.values():
            service.wait(GRACE_SECONDS)
        self._running.clear()

    def _ended(self, name: str, code: int) -> str:
        path = self.log_path(name)
        tail = "\n".join(f"    {line}" for line in path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return f"{name} ended with exit code {code}. The end of {path}:\n{tail}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has ended already


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return  # it has ended already
