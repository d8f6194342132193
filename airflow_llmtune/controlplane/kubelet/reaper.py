"""Finds and kills processes by a mark in their environment, also as a watchdog that outlives the control plane.

A process group is not enough: torchrun starts its workers in sessions of their own, and shells put jobs in groups of
their own. The environment, however, is inherited by all of them. This file is also run as a script, with a bare
interpreter: it imports nothing but the standard library. It needs ``/proc``; without one nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

MARK = "LLMTUNE_CONTAINER"
"""The variable; its value is ``<kubelet>/<pod uid>/<container>/<restart>``."""

_LOOK_SECONDS = 1.0
_ROUNDS = 40
_ROUND_SECONDS = 0.05


def marked(mark: str) -> list[int]:
    """The processes whose mark starts with this text."""
    wanted = f"{MARK}={mark}".encode()
    try:
        names = os.listdir("/proc")  # noqa: PTH208  pathlib would make an object per process
    except FileNotFoundError:
        return []
    own = str(os.getpid())
    return [int(name) for name in names if name.isdigit() and name != own and _has(name, wanted)]


def _has(pid: str, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123  as above
            return wanted in file.read()
    except OSError:
        return False


def kill_marked(mark: str) -> None:
    """Until none is left: one that is just being forked can escape a single look."""
    for _ in range(_ROUNDS):
        pids = marked(mark)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_SECONDS / 10)


class Watchdog:
    """A small process that kills everything of this kubelet when the control plane is gone, however it went.

    It holds the reading end of a pipe. When this process ends, even by SIGKILL, the pipe closes.
    """

    def __init__(self, mark: str) -> None:
        arguments = [sys.executable, "-I", "-S", __file__, mark, str(os.getpid())]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={}, start_new_session=True
        )

    def stop(self) -> None:
        """Let it make its last round and end; blocks until then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _watch(mark: str, parent: int) -> None:
    # A process forked off the control plane holds the pipe open too, so its parent is asked for as well.
    while os.getppid() == parent:
        ready, _, _ = select.select([0], [], [], _LOOK_SECONDS)
        if ready and not os.read(0, 1):
            break
    for _ in range(2):
        kill_marked(mark)
        time.sleep(_ROUND_SECONDS)


if __name__ == "__main__":
    _watch(sys.argv[1], int(sys.argv[2]))
