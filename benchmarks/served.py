"""Servers under measurement, each a process of its own."""

from __future__ import annotations

import base64
import contextlib
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import yaml

from benchmarks.http_connection import Address

MEGABYTE = 1_000_000
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_EMPTY_SERVER = ("-m", "benchmarks.empty_server")


class ServerError(Exception):
    """A server did not start."""


@dataclass
class Served:
    """A running server: where it is, and what it costs."""

    process: psutil.Process
    address: Address
    kubeconfig: Path
    start_seconds: float

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident_megabytes(self) -> float:
        return float(self.process.memory_info().rss) / MEGABYTE


@contextlib.contextmanager
def control_plane(*, state_dir: Path | None = None, arguments: Sequence[str] = ()) -> Iterator[Served]:
    words = ["-m", "airflow_llmtune.controlplane", *arguments]
    if state_dir is not None:
        words += ["--state-dir", str(state_dir)]
    with _running(words) as served:
        yield served


@contextlib.contextmanager
def fast_control_plane(state_dir: Path, speed: float) -> Iterator[Served]:
    """One whose clock runs ``speed`` times as fast."""
    with _running(["-m", "benchmarks.fast_plane", "--state-dir", str(state_dir), "--speed", str(speed)]) as served:
        yield served


@contextlib.contextmanager
def empty_server() -> Iterator[Served]:
    """The same HTTPS stack with nothing behind it: what a request costs before anything is done for it."""
    with _running(list(_EMPTY_SERVER)) as served:
        yield served


@contextlib.contextmanager
def _running(words: Sequence[str]) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="llmtune-benchmark-") as folder:
        kubeconfig = Path(folder, "kubeconfig")
        command = [sys.executable, *words, "--kubeconfig", str(kubeconfig)]
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(kubeconfig, process)
            seconds = time.monotonic() - begin
            yield Served(psutil.Process(process.pid), address_of(kubeconfig), kubeconfig, seconds)
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """The kubeconfig is written when requests are answered."""
    deadline = time.monotonic() + _START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"{process.args!r} does not start")
        time.sleep(0.005)


def address_of(kubeconfig: Path) -> Address:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    url = urlsplit(cluster["server"])
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    trust = ssl.create_default_context(cadata=authority)
    return Address(str(url.hostname), int(url.port or 0), config["users"][0]["user"]["token"], trust)
