"""Who waits: the triggers under measurement, in a triggerer of their own, which is asked and told what to do."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cryptography.fernet import Fernet

from benchmarks.idle_server import NAMESPACE
from benchmarks.waiting_objects import EXPERIMENTS, JOBS, Kind

Arguments = dict[str, Any]
_ASLEEP_SECONDS = 86_400.0
_END_SECONDS = 30.0


@dataclass(frozen=True)
class Waiter:
    """``first_request`` is what shows at the server that a wait has begun: once for all, or once for ``each``."""

    key: str
    title: str
    classpath: str
    arguments: Callable[[str, str, str, str], Arguments]
    """Of name, namespace, uid and kubeconfig."""
    kind: Kind | None = None
    first_request: str = ""
    each: bool = True
    requests_to_renew: int = 0
    """What a watch costs each time that it has reached its time limit."""

    def requests_to_begin(self, count: int) -> int:
        if not self.first_request:
            return 0
        return count if self.each else 1


SLEEP = Waiter(
    "airflow_alone",
    "Airflow alone, asleep",
    "benchmarks.waiting_triggers.SleepTrigger",
    lambda name, namespace, *_: {"name": name, "seconds": _ASLEEP_SECONDS if namespace == NAMESPACE else 2.0},
)
SHARED = Waiter(
    "shared_watch",
    "ours, one watch",
    "airflow_llmtune.triggers.katib.KatibExperimentTrigger",
    lambda name, namespace, uid, kubeconfig: {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "kubernetes_conn_id": None,
        "config_file": kubeconfig,
    },
    EXPERIMENTS,
    "watch experiments",
    each=False,
    requests_to_renew=1,
)
OWN_WATCH = Waiter(
    "own_watch",
    "one watch per trigger",
    "benchmarks.waiting_triggers.OwnWatchTrigger",
    lambda name, namespace, _, kubeconfig: {"name": name, "namespace": namespace, "config_file": kubeconfig},
    EXPERIMENTS,
    "watch experiments",
    requests_to_renew=2,
)
# It reads no `config_file` unless it has a connection; its KUBECONFIG is the server's.
JOB_POLL = Waiter(
    "job_poll",
    "KubernetesJobTrigger",
    "airflow.providers.cncf.kubernetes.triggers.job.KubernetesJobTrigger",
    lambda name, namespace, *_: {
        "job_name": name,
        "job_namespace": namespace,
        "pod_names": [f"{name}-x7k2p"],
        "pod_namespace": namespace,
        "base_container_name": "base",
        "get_logs": False,
    },
    JOBS,
    "get jobs",
)
TRIGGERS = (SLEEP, SHARED, OWN_WATCH, JOB_POLL)


class Triggerer:
    """The process; its stdin and stdout are the way to talk with it."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self._program = program
        self.process = psutil.Process(program.pid)

    def ask(self, command: str) -> Any:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{command}\n".encode())
        self._program.stdin.flush()
        line = self._program.stdout.readline()
        if not line:
            raise EOFError(f"the triggerer ended with {self._program.wait()} when it was told to {command}")
        return json.loads(line)

    def load(self, waiter: Waiter, namespace: str, uids: Mapping[str, str], kubeconfig: Path) -> None:
        arguments = [waiter.arguments(name, namespace, uid, str(kubeconfig)) for name, uid in uids.items()]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"classpath": waiter.classpath, "arguments": arguments}, file)
            file.flush()
            self.ask(f"load {file.name}")

    def wait_until(self, what: Callable[[Mapping[str, Any]], bool], seconds: float) -> bool:
        """Look again and again; whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not what(self.ask("look")):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def fired(self, names: Sequence[str]) -> dict[str, float]:
        """When each was told of its success; ``names`` are those that were loaded, in their order."""
        return {names[place]: at for place, at, succeeded in self.ask("fired")["fired"] if succeeded}


@contextlib.contextmanager
def triggerer(kubeconfig: Path) -> Iterator[Triggerer]:
    with tempfile.TemporaryDirectory(prefix="llmtune-airflow-") as home:
        settings = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "KUBECONFIG": str(kubeconfig),
        }
        command = [sys.executable, "-m", "benchmarks.triggerer"]
        pipe = subprocess.PIPE
        program = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=os.environ | settings)
        try:
            yield Triggerer(program)
        finally:
            try:
                program.communicate(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()
