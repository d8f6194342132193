"""The parent of one container: starts its first process, writes its log, keeps its bounds, ends what it left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from airflow_llmtune.controlplane.kubelet.runtime import private_view, processes
from airflow_llmtune.controlplane.kubelet.runtime.log_file import LogFile
from airflow_llmtune.controlplane.kubelet.runtime.protocol import ContainerSpec, Message

_LOOK_SECONDS = 1.0
_END_LOOK_SECONDS = 0.005
_READ_BYTES = 64 * 1024
_KILLED = 137


class Shim:
    """``run`` returns when nothing of the container is left. ``report`` tells the runtime."""

    def __init__(self, spec: ContainerSpec, runtime: int, report: Callable[[Message], None]) -> None:
        self._spec = spec
        self._runtime = runtime
        self._report = report
        self._first = 0
        self._code: int | None = None
        self._is_killed = False
        self._broken_bound = ("", "")
        self._wake, write_end = os.pipe()
        for end in (self._wake, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._kill)

    def run(self) -> None:
        processes.adopt_orphans()
        self._enter_view()
        processes.end_with_parent(signal.SIGTERM)
        if os.getppid() != self._runtime:
            return
        try:
            log = LogFile(Path(self._spec.log))
        except OSError as error:
            self._report({"error": f"log {self._spec.log}: {error.strerror}"})
            return
        output, write_end = os.pipe()
        try:
            self._start(write_end)
        except (OSError, ValueError) as error:
            self._report({"error": start_message(self._spec.argv[0], error)})
            return
        finally:
            os.close(write_end)
        self._report({"pid": self._first})
        self._follow(output, log)
        reason, message = self._broken_bound
        self._report({"code": self._code, "reason": reason, "message": message, "finished": time.time()})

    def _enter_view(self) -> None:
        if self._spec.binds:
            try:
                private_view.enter(self._spec.binds)
            except OSError as error:  # The container runs without, as it would on another machine.
                sys.stderr.write(f"{self._spec.id}: {error}\n")

    def _start(self, output: int) -> None:
        process = subprocess.Popen(
            self._spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self._spec.env,
            cwd=self._spec.cwd,
            start_new_session=True,
        )
        self._first = process.pid
        process.returncode = 0  # It is waited for here, with all other children.

    def _follow(self, output: int, log: LogFile) -> None:
        """Until the first process and then all others have ended and their last word is in the log."""
        os.set_blocking(output, False)
        next_look = time.monotonic() + _LOOK_SECONDS
        sources = [self._wake, output]
        while self._reap():
            is_ending = self._is_killed or self._code is not None
            if is_ending:
                self._kill_all()
            elif time.monotonic() >= next_look:
                self._keep_bounds()
                next_look = time.monotonic() + _LOOK_SECONDS
            ready, _, _ = select.select(sources, [], [], _END_LOOK_SECONDS if is_ending else _LOOK_SECONDS)
            if output in ready and not _copy(output, log):
                sources.remove(output)  # Closed by all, which a daemon does while it runs on.
            if self._wake in ready:
                os.read(self._wake, _READ_BYTES)
        while output in sources and _copy(output, log):
            pass

    def _reap(self) -> bool:
        """Whether children are left; notes how the first one ended."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._first:
                    code = os.waitstatus_to_exitcode(status)
                    self._code = 128 - code if code < 0 else code
        except ChildProcessError:
            return False

    def _keep_bounds(self) -> None:
        pids = processes.descendants(os.getpid())
        limit = self._spec.memory_bytes
        if len(pids) > self._spec.most_processes:
            self._broken_bound = ("Error", f"the container had more than {self._spec.most_processes} processes")
        elif limit and processes.resident_memory(pids) > limit and processes.used_memory(pids) > limit:
            self._broken_bound = ("OOMKilled", "")
        else:
            return
        self._is_killed = True

    def _kill(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal handler's arguments
        self._is_killed = True

    def _kill_all(self) -> None:
        """All that is below; where that cannot be told, the group of the first process."""
        pids = processes.descendants(os.getpid())
        processes.kill(pids or [-self._first])


def _copy(output: int, log: LogFile) -> bool:
    """Whether more may come later."""
    try:
        data = os.read(output, _READ_BYTES)
    except BlockingIOError:
        return False
    log.write(data)
    return bool(data)


def start_message(program: str, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        where = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        return f'exec: "{program}": {where}'
    if isinstance(error, OSError):
        return f'exec: "{program}": {error.strerror}'
    return f"exec: {program!r}: {error}"  # A NUL byte in an argument or variable.
