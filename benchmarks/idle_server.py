"""The idle control plane as a process that is asked, killed and started again under those who wait."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.served import address_of, wait_for

NAMESPACE = "default"
# Where one wait begins and ends before the others are measured, so that what is loaded only once is loaded.
WARM_NAMESPACE = "warm"
_STOP_SECONDS = 60.0


class IdleServer:
    """``folder`` keeps its objects and its port."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._state = folder / "state"
        self.start()
        self.address = address_of(self.kubeconfig)

    def start(self) -> float:
        """Returns the seconds that it took."""
        begin = time.monotonic()
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.idle_plane"]
        command += ["--kubeconfig", str(self.kubeconfig), "--state-dir", str(self._state)]
        command += ["--namespace", NAMESPACE, "--namespace", WARM_NAMESPACE]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process = psutil.Process(self._program.pid)
        wait_for(self.kubeconfig, self._program)
        return time.monotonic() - begin

    def requests(self) -> Counter[str]:
        """Since the last start, such as ``{"watch experiments": 1}``."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(b"\n")
        self._program.stdin.flush()
        return Counter(json.loads(self._program.stdout.readline()))

    def kill(self) -> None:
        self._program.kill()
        self._end()

    def stop(self) -> None:
        if self._program.poll() is None:
            self._end()

    def _end(self) -> None:
        """The end of its stdin ends it."""
        try:
            self._program.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.communicate()


@contextlib.contextmanager
def idle_server(folder: Path) -> Iterator[IdleServer]:
    server = IdleServer(folder)
    try:
        yield server
    finally:
        server.stop()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
