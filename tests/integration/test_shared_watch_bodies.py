"""Large objects in lists and streams, and connections that have died without a word."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks import client as hooks_client
from airflow_llmtune.hooks.client import KEEPALIVE, PAGE_BYTES, KubeflowClient
from airflow_llmtune.resources import job
from airflow_llmtune.triggers import list_watch
from clients import http_client
from held_jobs import OURS, HeldJobs, Requests, cancel, held_job, phases, start
from waiting import eventually

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("short_pauses")]


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], int]]:
    """The query of each answer, and how many bytes were decoded in one piece."""
    found: list[tuple[dict[str, Any], int]] = []
    send = KubeflowClient._send

    async def recorded(self: KubeflowClient, *what: Any, **request: Any) -> tuple[Any, int]:
        query = dict(request.get("query") or {})
        body, size = await send(self, *what, **request)
        if "limit" in query and "/jobs" in what[-1]:
            found.append((query, size))
        return body, size

    monkeypatch.setattr(KubeflowClient, "_send", recorded)
    return found


def large_job(name: str, size: int) -> dict[str, Any]:
    """Environment variables are where real ones are large."""
    body = held_job(name, OURS)
    piece = "x" * 10_000
    body["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": f"E{number}", "value": piece} for number in range(size // len(piece))
    ]
    return body


async def create(jobs: HeldJobs, count: int, size: int) -> list[Any]:
    def send() -> list[Any]:
        with http_client(Path(jobs.kubeconfig).read_text()) as http:
            bodies = [large_job(f"large-{number}", size) for number in range(count)]
            answers = [http.post(job.KIND.path(jobs.namespace), json=body) for body in bodies]
        return [answer.raise_for_status().json() for answer in answers]

    return [jobs.trigger(one) for one in await asyncio.to_thread(send)]


async def test_an_object_as_large_as_the_api_server_takes_comes_through_the_stream(plane, jobs):
    small = await jobs.create(10)
    asked = Requests(plane)
    waits = start(small)
    await eventually(lambda: asked["watch"])
    large = await create(jobs, 2, 1_400_000)
    waits += start(large)
    wanted = await jobs.end([*small, *large])
    assert await phases(waits) == wanted
    assert (asked["list"], asked["watch"]) == (1, 1)


async def test_pages_hold_no_more_bytes_than_are_decoded_quickly(plane, jobs, bodies):
    triggers = await create(jobs, 300, 100_000)
    asked = Requests(plane)
    waits = start(triggers)
    await eventually(lambda: asked["watch"])
    (first, _), *others = bodies
    assert first["limit"] == hooks_client.FIRST_PAGE
    assert all(0.8 * PAGE_BYTES < size <= PAGE_BYTES for _, size in others[:-1])
    assert sum(query["limit"] for query, _ in bodies) >= 300
    await cancel(waits)


# A connection that has died.


def probed(plane: ControlPlane) -> list[dict[str, int]]:
    """How those of this process's own connections to the API server are probed that are."""
    port = int(plane.url.rpartition(":")[2])
    found = [one for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == port]
    options = []
    for connection in found:
        with socket.socket(fileno=os.dup(connection.fd)) as one:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
                options.append({name: one.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE})
    return options


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has no such option")
async def test_a_watch_finds_out_by_itself_when_its_peer_is_gone(plane, jobs):
    (trigger,) = await jobs.create(1)
    waits = start([trigger])
    await eventually(lambda: len(probed(plane)) == 2)
    assert probed(plane) == [KEEPALIVE] * 2
    # With the first question and all that go without an answer.
    assert KEEPALIVE["TCP_KEEPIDLE"] + KEEPALIVE["TCP_KEEPINTVL"] * KEEPALIVE["TCP_KEEPCNT"] <= 60
    await cancel(waits)


class Proxy:
    """Passes bytes on, until it is told to swallow those of all connections that it has by then."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def go_deaf(self) -> None:
        for deaf in self._open:
            deaf.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        deaf = asyncio.Event()
        self._open.append(deaf)
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, forth, deaf))
                group.create_task(_pass_on(back, writer, deaf))
        finally:
            writer.transport.abort()
            forth.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            if not deaf.is_set():
                writer.write(piece)
        if deaf.is_set():
            await asyncio.Event().wait()
        writer.close()


async def test_a_connection_on_which_nothing_comes_any_more_is_given_up(plane, jobs, kubeconfig, monkeypatch):
    """As behind a load balancer that forgot it: nobody closes it, and keep-alive probes are answered."""
    monkeypatch.setattr(list_watch, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(hooks_client, "OVERDUE_SECONDS", 0.5)
    triggers = await jobs.create(20)
    asked = Requests(plane)
    proxy = Proxy(int(plane.url.rpartition(":")[2]))
    async with proxy.listening() as port:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        Path(kubeconfig).write_text(yaml.safe_dump(config))
        waits = start(triggers)
        await eventually(lambda: asked["watch"])
        proxy.go_deaf()
        wanted = await jobs.end(triggers)
        assert await phases(waits) == wanted
    assert (asked["list"], asked["get"]) == (2, 0)
