"""The control plane as a program, which a test kills and starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

from clients import http_client
from objects import Object


def processes(word: str) -> list[psutil.Process]:
    """All of this machine that were started with it."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if any(word in part for part in one.info["cmdline"] or ())]


class Program:
    """The control plane as a program on one state directory; its client has the first kubeconfig's token and CA."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.kubeconfig = folder / "kubeconfig"
        self._process: subprocess.Popen[str] | None = None
        self._start()
        self.http = http_client(self.kubeconfig.read_text())

    def _start(self) -> None:
        self._launch()
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("control plane ready at")

    def _launch(self) -> None:
        command = [sys.executable, "-m", "airflow_llmtune.controlplane"]
        self._process = subprocess.Popen(
            [*command, "--kubeconfig", str(self.kubeconfig), "--state-dir", str(self.state)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self._start()
        # The same as before, unless another test has got the port in between.
        self.http.base_url = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]

    def start_and_kill(self, seconds: float) -> None:
        """Give it so much time, which may be too little to become ready."""
        self._launch()
        time.sleep(seconds)
        self.kill()

    def close(self) -> None:
        self._end(signal.SIGTERM)
        self.http.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.communicate(timeout=30)
            self._process = None

    def get(self, path: str) -> Object:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: Object = answer.json()
        return found

    def create(self, path: str, body: Object) -> Object:
        answer = self.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        created: Object = answer.json()
        return created

    def runtime(self) -> psutil.Process:
        """The parent of all containers."""
        children = psutil.Process(self.pid).children()
        (found,) = [one for one in children if one.cmdline()[3].endswith("/kubelet/runtime")]
        return found
