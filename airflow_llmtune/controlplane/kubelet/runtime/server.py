"""The runtime's loop: takes orders from one kubelet at a time, forks the shims and keeps what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from airflow_llmtune.controlplane.kubelet.runtime import private_view, processes
from airflow_llmtune.controlplane.kubelet.runtime.protocol import (
    ContainerSpec,
    Message,
    Settings,
    decode,
    encode,
    remove_socket,
)
from airflow_llmtune.controlplane.kubelet.runtime.shim import Shim

_LOOK_SECONDS = 1.0
_SEND_SECONDS = 10.0
_STOP_SECONDS = 10.0
_READ_BYTES = 1024 * 1024
_MOST_FILES = 64 * 1024


class _Container:
    """``told`` is all that its shim has said: a pid, then a code; or an error."""

    def __init__(self, spec: ContainerSpec, shim: int, reports: int) -> None:
        self.id = spec.id
        self.shim = shim
        self.reports = reports
        self.told: Message = {}
        self.unread = b""

    @property
    def has_ended(self) -> bool:
        return "code" in self.told or "error" in self.told


class Server:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._containers: dict[str, _Container] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._client: socket.socket | None = None
        self._client_pid = 0  # As long as it has not told.
        self._unread = b""
        self._ends_at: float | None = None
        self._was_told_to_stop = False
        self._isolates = private_view.is_possible(Path(settings.socket).parent)

    def serve(self) -> None:
        """Until told to stop, or until the kubelet has been gone for too long."""
        processes.adopt_orphans()
        self._listener.bind(self._settings.socket)
        self._listener.listen()
        self._watch(self._listener, self._accept)
        self._expect_client()
        record = Path(self._settings.record)
        record.write_text(json.dumps({"socket": self._settings.socket, "mark": self._settings.mark}))
        os.write(1, b"ready\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while not self._was_told_to_stop and (self._ends_at is None or time.monotonic() < self._ends_at):
            self._turn(_LOOK_SECONDS if self._ends_at is None else min(self._left(), _LOOK_SECONDS))
        self._end_all()
        record.unlink(missing_ok=True)
        remove_socket(self._settings.socket)
        if not self._was_told_to_stop and self._settings.state_dir:
            shutil.rmtree(self._settings.state_dir, ignore_errors=True)

    def _left(self) -> float:
        return max(0.0, (self._ends_at or 0.0) - time.monotonic())

    def _turn(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data()
        if self._client is not None and self._client_pid and not processes.is_alive(self._client_pid):
            self._hang_up()  # A process forked off the kubelet may keep the connection open.

    def _watch(self, file: socket.socket | int, act: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, act)

    # The kubelet

    def _expect_client(self) -> None:
        # The first one is about to come, so a moment is right also where nothing is to outlive it.
        self._ends_at = time.monotonic() + max(self._settings.outage_seconds, _STOP_SECONDS)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._client is not None:
            self._hang_up()
        client.settimeout(_SEND_SECONDS)
        self._client, self._client_pid, self._ends_at, self._unread = client, 0, None, b""
        self._watch(client, lambda: self._listen(client))
        containers = [{"id": one.id, **one.told} for one in self._containers.values()]
        self._tell({"pid": os.getpid(), "isolates": self._isolates, "containers": containers})

    def _hang_up(self) -> None:
        if self._client is not None:
            self._selector.unregister(self._client)
            self._client.close()
            self._client = None
            self._ends_at = time.monotonic() + self._settings.outage_seconds

    def _tell(self, message: Message) -> None:
        if self._client is not None:
            try:
                self._client.sendall(encode(message))
            except OSError:
                self._hang_up()

    def _listen(self, client: socket.socket) -> None:
        if client is not self._client:
            return
        try:
            data = client.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._obey(decode(line))

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "hello":
                self._client_pid = message["pid"]
            case "start":
                self._start(ContainerSpec(**message["container"]))
            case "forget":
                self._containers.pop(message["id"], None)
            case "stop":
                self._was_told_to_stop = True
            case "signal":
                self._signal(message["id"], message["signal"])

    # The containers

    def _start(self, spec: ContainerSpec) -> None:
        runtime = os.getpid()
        ends: tuple[int, ...] = ()
        try:
            ends = reports, write_end = os.pipe()
            shim = os.fork()
        except OSError as error:  # Too many files or processes for now; the others run on.
            for end in ends:
                os.close(end)
            self._tell({"id": spec.id, "error": f"cannot start a process: {error.strerror}"})
            return
        if shim == 0:
            _be_shim(spec, write_end, runtime)
        os.close(write_end)
        container = self._containers[spec.id] = _Container(spec, shim, reports)
        self._watch(reports, lambda: self._hear(container))

    def _signal(self, container_id: str, number: int) -> None:
        """SIGKILL is for all of the container, which its shim knows; others go to the first process' group."""
        container = self._containers.get(container_id)
        if container is None or container.has_ended:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGKILL:
                os.kill(container.shim, signal.SIGTERM)
            elif "pid" in container.told:
                os.killpg(container.told["pid"], number)

    def _hear(self, container: _Container) -> None:
        data = os.read(container.reports, _READ_BYTES)
        *lines, container.unread = (container.unread + data).split(b"\n")
        for line in lines:
            container.told |= decode(line)
            self._tell({"id": container.id, **container.told})
        if not data:
            self._close(container)

    def _close(self, container: _Container) -> None:
        self._selector.unregister(container.reports)
        os.close(container.reports)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(container.shim, 0)
        if not container.has_ended:  # The shim was killed; what it adopted is only found by its mark.
            processes.kill_marked(f"{self._settings.mark}/{container.id}")
            container.told |= {"code": 137, "reason": "", "message": "", "finished": time.time()}
            self._tell({"id": container.id, **container.told})
            _reap()

    def _end_all(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        until = time.monotonic() + _STOP_SECONDS
        running = [one for one in self._containers.values() if not one.has_ended]
        for one in running:
            self._signal(one.id, signal.SIGKILL)
        while time.monotonic() < until and any(not one.has_ended for one in running):
            self._turn(_LOOK_SECONDS)
        processes.kill_marked(self._settings.mark)


def _reap() -> None:
    """What came to the runtime when a shim was killed."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _be_shim(spec: ContainerSpec, reports: int, runtime: int) -> NoReturn:
    """In the forked process: nothing of the runtime's is kept open, and no way leads back to its loop."""
    code = 1
    try:
        os.closerange(3, reports)
        os.closerange(reports + 1, min(os.sysconf("SC_OPEN_MAX"), _MOST_FILES))
        Shim(spec, runtime, lambda message: _report(reports, message)).run()
        code = 0
    except Exception:  # noqa: BLE001  told in the runtime's log; the runtime sees the end
        traceback.print_exc()
    finally:
        os._exit(code)


def _report(reports: int, message: Message) -> None:
    with contextlib.suppress(OSError):  # The runtime is gone, and this shim is about to go too.
        os.write(reports, encode(message))


def main(argument: str) -> None:
    os.setsid()  # Ctrl-C in a terminal is for the control plane, which then says what is to be done.
    Server(Settings(**json.loads(argument))).serve()
