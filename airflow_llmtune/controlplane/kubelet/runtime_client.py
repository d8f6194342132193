"""The kubelet's side of the runtime: starts one or finds the one that an earlier kubelet left, and talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from airflow_llmtune.controlplane.kubelet.runtime import processes
from airflow_llmtune.controlplane.kubelet.runtime.protocol import (
    ContainerSpec,
    Message,
    Settings,
    decode,
    encode,
    remove_socket,
)

_PROGRAM = Path(__file__).parent / "runtime"
_LONGEST_LINE = 256 * 1024 * 1024
_LONGEST_FOLDER = 80
_END_SECONDS = 1.0
_LOOK_SECONDS = 0.005


class StartError(Exception):
    """The command could not be executed."""


class RuntimeLostError(Exception):
    """The runtime is gone, and with it all its containers."""


@dataclass(frozen=True)
class Exit:
    code: int
    """As a shell shows it: 128 and the signal's number for a process that was killed."""
    reason: str
    """Empty unless the runtime ended the container: ``OOMKilled``."""
    message: str
    finished: datetime


class ContainerProcess:
    """A container that was started: its first process and all that come from it."""

    def __init__(self, container_id: str, runtime: RuntimeClient) -> None:
        self.id = container_id
        self._runtime = runtime
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[int] = loop.create_future()
        self._exit: asyncio.Future[Exit] = loop.create_future()
        self._was_asked = False

    @property
    def pid(self) -> int | None:
        """None before its start and after its end."""
        is_running = self._started.done() and self._started.exception() is None and not self._exit.done()
        return self._started.result() if is_running else None

    @property
    def has_ended(self) -> bool:
        return self._exit.done()

    async def started(self) -> None:
        """Raises StartError when it could not be."""
        await asyncio.shield(self._started)

    async def wait(self) -> Exit:
        """Returns when nothing of it is left; raises RuntimeLostError, and what ``started`` raises."""
        return await asyncio.shield(self._exit)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the first process' group, after the grace period SIGKILL to all; ``wait`` returns soon after.

        It is asked once: many programs end at once when they are asked again.
        """
        if grace_seconds > 0:
            if not self._was_asked:
                self._was_asked = True
                self._runtime.signal(self.id, signal.SIGTERM)
            with contextlib.suppress(TimeoutError, RuntimeLostError):
                async with asyncio.timeout(grace_seconds):
                    await self.wait()
        self._runtime.signal(self.id, signal.SIGKILL)

    def forget(self) -> None:
        """Its end has been written down, so that a later kubelet need not be told."""
        self._runtime.forget(self.id)

    def hear(self, message: Message) -> None:
        if "error" in message and not self._started.done():
            for future in (self._started, self._exit):
                future.set_exception(StartError(message["error"]))
                future.exception()  # Whether it is waited for depends on who had it started.
        if "pid" in message and not self._started.done():
            self._started.set_result(message["pid"])
        if "code" in message and not self._exit.done():
            finished = datetime.fromtimestamp(message["finished"], UTC)
            self._exit.set_result(Exit(message["code"], message["reason"], message["message"], finished))

    def lose(self) -> None:
        for future in (self._started, self._exit):
            if not future.done():
                future.set_exception(RuntimeLostError())
                future.exception()  # It need not have been waited for.


class RuntimeClient:
    def __init__(self, state_dir: Path, *, outage_seconds: float, is_temporary: bool) -> None:
        self._state_dir = state_dir
        self._record = state_dir / "runtime.json"
        self._outage_seconds = outage_seconds
        self._is_temporary = is_temporary
        self._containers: dict[str, ContainerProcess] = {}
        self._starting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._mark = ""
        self._pid = 0
        self._socket = ""
        self.isolates = False
        """Whether containers can have their own view of the host's paths; known when a runtime runs."""

    async def adopt(self) -> Mapping[str, ContainerProcess]:
        """The containers of the runtime that an earlier kubelet left, if it is still there."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        try:
            await self._connect(record["socket"], record["mark"])
        except OSError:
            await asyncio.to_thread(processes.kill_marked, record["mark"])
            remove_socket(record["socket"])
            self._record.unlink(missing_ok=True)
        return dict(self._containers)

    async def start(self, spec: ContainerSpec) -> ContainerProcess:
        """Raises StartError, or RuntimeLostError."""
        await self.be_ready()
        process = self._containers[spec.id] = ContainerProcess(spec.id, self)
        marked = {**spec.env, processes.MARK: f"{self._mark}/{spec.id}"}
        self._tell({"do": "start", "container": asdict(replace(spec, env=marked))})
        try:
            await process.started()
        except StartError:
            process.forget()
            raise
        return process

    async def be_ready(self) -> None:
        """Start a runtime if none is there."""
        async with self._starting:
            if self._writer is None:
                if self._listening is not None:
                    await self._listening  # The one before is being cleaned up.
                mark = uuid4().hex
                self._pid, path = await asyncio.to_thread(self._spawn, mark)
                await self._connect(path, mark)

    def signal(self, container_id: str, number: signal.Signals) -> None:
        self._tell({"do": "signal", "id": container_id, "signal": int(number)})

    def forget(self, container_id: str) -> None:
        self._containers.pop(container_id, None)
        self._tell({"do": "forget", "id": container_id})

    async def stop(self) -> None:
        """Returns when the runtime and all containers are gone."""
        async with self._starting:
            if self._listening is not None:
                self._tell({"do": "stop"})
                await self._listening

    def _spawn(self, mark: str) -> tuple[int, str]:
        """Blocks until it listens."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        settings = Settings(
            mark=mark,
            socket=f"{_socket_folder()}/s",
            record=str(self._record.absolute()),
            outage_seconds=self._outage_seconds,
            state_dir=str(self._state_dir.absolute()) if self._is_temporary else "",
        )
        ready, write_end = os.pipe()
        errors = os.open(self._state_dir / "runtime.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Without a Popen object: the runtime may well outlive this process.
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(_PROGRAM), json.dumps(asdict(settings))],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_DUP2, errors, 2),
                ],
            )
        finally:
            os.close(write_end)
            os.close(errors)
        with os.fdopen(ready, "rb") as answer:
            if answer.readline() != b"ready\n":
                os.waitpid(pid, 0)
                remove_socket(settings.socket)
                raise RuntimeError(f"the container runtime did not start; {self._state_dir / 'runtime.log'} says why")
        return pid, settings.socket

    async def _connect(self, path: str, mark: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST_LINE)
        greeting = decode(await reader.readline() or b"{}")
        if not greeting:
            raise ConnectionResetError("the runtime hung up")
        self._writer, self._socket, self._mark, self._pid = writer, path, mark, greeting["pid"]
        self.isolates = greeting["isolates"]
        for one in greeting["containers"]:
            self._containers[one["id"]] = ContainerProcess(one["id"], self)
            self._containers[one["id"]].hear(one)
        self._tell({"do": "hello", "pid": os.getpid()})
        self._listening = asyncio.create_task(self._listen(reader, writer))

    def _tell(self, message: Message) -> None:
        if self._writer is not None:
            self._writer.write(encode(message))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while line := await reader.readline():
                message = decode(line)
                container = self._containers.get(message["id"])
                if container is not None:
                    container.hear(message)
        await self._clean_up()

    async def _clean_up(self) -> None:
        """The runtime is gone: so is everything of it when this returns, and another can be started."""
        lost, self._containers = self._containers, {}
        self._writer = None
        await asyncio.to_thread(_end, self._pid, self._mark, self._socket)
        self._listening = None
        for container in lost.values():
            container.lose()


def _socket_folder() -> str:
    """A new one, as the path of a socket must be short: some hundred characters."""
    usual = tempfile.gettempdir()
    place = usual if len(usual) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108  what is made there is for its owner only
    return tempfile.mkdtemp(prefix="llmtune-", dir=place)


def _end(runtime: int, mark: str, socket: str) -> None:
    """Wait for the end of a runtime that has hung up, and kill what one left that was killed itself.

    One that does not end has got another kubelet, which is in charge of the containers now.
    """
    until = time.monotonic() + _END_SECONDS
    while True:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(runtime, os.WNOHANG)
        if not processes.is_alive(runtime):
            processes.kill_marked(mark)
            remove_socket(socket)
            return
        if time.monotonic() > until:
            return
        time.sleep(_LOOK_SECONDS)
