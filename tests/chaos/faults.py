"""What is hit, and how: a process is killed, stopped for a while, or shut down in an orderly way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from demo.progress import worker_pids
from many_waits import title_of
from tests.chaos.cases import Fault
from tests.chaos.run import Run
from tests.chaos.site import IDLE_WORKER, ChaosSite

STOPPED_SECONDS = 40.0
# As long as a service is down before its supervisor starts it again.
DOWN_SECONDS = 5.0
# What an orchestrator gives a process between SIGTERM and SIGKILL.
WORKER_GRACE_SECONDS = 5.0
SERVICE_GRACE_SECONDS = 30.0
TAKEOVER_SECONDS = 60.0


class Victim:
    """Some processes that a fault hits; between the two calls they are down."""

    def __init__(self) -> None:
        self._hit: list[psutil.Process] = []
        self._since = 0.0

    def processes(self) -> list[psutil.Process]:
        raise NotImplementedError

    def shut_down(self) -> None:
        """Ask it to end, as who runs it does before an upgrade."""
        raise NotImplementedError

    def strike(self, fault: Fault) -> None:
        self._hit, self._since = self.processes(), time.monotonic()
        assert self._hit, "there is nothing to hit"
        match fault:
            case "SIGKILL":
                _kill(self._hit)
            case "SIGSTOP":
                _each(self._hit, psutil.Process.suspend)
            case "restart":
                self.shut_down()

    def recover(self, fault: Fault) -> None:
        if fault != "SIGSTOP":
            return
        self.stay_down(STOPPED_SECONDS)
        _each(self._hit, psutil.Process.resume)

    def stay_down(self, seconds: float) -> None:
        time.sleep(max(self._since + seconds - time.monotonic(), 0.0))


class Service(Victim):
    """One service of the site, without the workers that run tasks: these are a victim by themselves."""

    def __init__(self, site: ChaosSite, name: str) -> None:
        super().__init__()
        self.site = site
        self.name = name
        self._ending: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        return [one for one in self.site.family(self.name) if not _runs_a_task(one)]

    def shut_down(self) -> None:
        self._hit[0].terminate()

    def strike(self, fault: Fault) -> None:
        super().strike(fault)
        if fault != "SIGSTOP":
            self._ending = self.site.processes.let_go(self.name)

    def recover(self, fault: Fault) -> None:
        super().recover(fault)
        if fault != "SIGSTOP":
            self._await_end()
            self.stay_down(DOWN_SECONDS)
            self.site.restart(self.name)
        self.site.until_healthy()

    def _await_end(self) -> None:
        try:
            self._ending.wait(SERVICE_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(self._hit)
            self._ending.wait(SERVICE_GRACE_SECONDS)


class Triggerer(Service):
    """The triggerer that waits for a run; it stays away until another one, where there is one, waits in its place."""

    def __init__(self, site: ChaosSite, run: Run) -> None:
        super().__init__(site, run.triggerers()[0])
        self.run = run

    def recover(self, fault: Fault) -> None:
        try:
            if len(self.site.triggerers) > 1:
                self.site.until(self._is_taken_over, TAKEOVER_SECONDS, "the takeover by another triggerer")
        finally:
            super().recover(fault)

    def _is_taken_over(self) -> bool:
        return bool(set(self.run.triggerers()) - {self.name})


class Workers(Victim):
    """The workers of some runs: of each a supervisor, and the process in which the task runs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        super().__init__()
        self.runs = runs

    def processes(self) -> list[psutil.Process]:
        pids = [pid for run in self.runs for pid in worker_pids(str(run.instance()["id"]))]
        return [psutil.Process(pid) for pid in pids]

    def shut_down(self) -> None:
        _each(self._hit, psutil.Process.terminate)
        _, alive = psutil.wait_procs(self._hit, timeout=WORKER_GRACE_SECONDS)
        _kill(alive)


class TrialPods(Victim):
    """The pods of some runs' trials."""

    def __init__(self, site: ChaosSite, runs: Sequence[Run]) -> None:
        super().__init__()
        self.site = site
        self.runs = runs

    def processes(self) -> list[psutil.Process]:
        return [one for run in self.runs for one in run.processes()]

    def shut_down(self) -> None:
        # As when its node is drained.
        for pod in [pod for run in self.runs for pod in run.pods()]:
            self.site.http.delete(pod).raise_for_status()


def _kill(processes: Sequence[psutil.Process]) -> None:
    _each(processes, psutil.Process.kill)
    psutil.wait_procs(processes, timeout=SERVICE_GRACE_SECONDS)


def _each(processes: Sequence[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)


def _runs_a_task(process: psutil.Process) -> bool:
    title = title_of(process)
    return title.startswith("airflow worker -- ") and title != IDLE_WORKER
