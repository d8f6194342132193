"""Carries out what a probe or a hook asks for: a request, a connection, a command, a call of gRPC's health service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from airflow_llmtune.controlplane.apiserver.discovery import KUBERNETES_VERSION

Object = dict[str, Any]
Execute = Callable[[list[str], float], Awaitable[tuple[int, str]]]
"""Runs a command in the container, for so many seconds at most: exit code and output. Raises what Actions raises."""

_USER_AGENT = f"kube-probe/{'.'.join(KUBERNETES_VERSION.removeprefix('v').split('.')[:2])}"
_GRPC_HEALTH = "airflow_llmtune.controlplane.kubelet.grpc_health"
_MOST_REDIRECTS = 10
_LONGEST_BODY_BYTES = 10 * 1024
_LARGEST_PORT = 65535
_DEADLINE = "context deadline exceeded"


class ActionError(Exception):
    """It could not be carried out, which says nothing about the container."""


@dataclass(frozen=True)
class Result:
    is_success: bool
    output: str = ""
    is_warning: bool = False
    """A success that is worth an event."""
    is_answer: bool = False
    """A failure that at least somebody answered with."""


class Actions:
    """For one container. ``address`` is its pod's."""

    def __init__(self, container: Mapping[str, Any], address: str, execute: Execute) -> None:
        self._container = container
        self._address = address
        self._execute = execute

    async def perform(self, action: Object, seconds: float) -> Result:
        """``action`` holds one of the handlers. Raises ActionError."""
        try:
            return await self._perform(action, seconds)
        except OSError as error:  # Such as a full disk: of the kubelet, and no reason to end the probing.
            raise ActionError(str(error)) from error

    async def _perform(self, action: Object, seconds: float) -> Result:
        if "httpGet" in action:
            return await self._get(action["httpGet"], seconds)
        if "tcpSocket" in action:
            return await self._connect(action["tcpSocket"], seconds)
        if "grpc" in action:
            return await self._check(action["grpc"], seconds)
        return await self._run(action["exec"]["command"], seconds)

    async def _get(self, request: Object, seconds: float) -> Result:
        host, port = request.get("host") or self._address, self._port(request["port"])
        url = _url(request["scheme"].lower(), host, port, request["path"])
        try:
            async with asyncio.timeout(seconds):
                return await _follow(url, _headers(request))
        except TimeoutError:
            return Result(False, f'Get "{url}": {_DEADLINE} (Client.Timeout exceeded while awaiting headers)')
        except aiohttp.ClientConnectorError as error:
            return Result(False, f'Get "{url}": {_dial_message(host, port, error.os_error)}')
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Result(False, f'Get "{url}": {error or "EOF"}')

    async def _connect(self, target: Object, seconds: float) -> Result:
        host, port = target.get("host") or self._address, self._port(target["port"])
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Result(False, f"dial tcp {host}:{port}: i/o timeout")
        except OSError as error:
            return Result(False, _dial_message(host, port, error))
        except ValueError as error:  # Of a name that no host can have.
            return Result(False, f"dial tcp: lookup {host}: {error}")
        writer.close()
        return Result(True)

    async def _check(self, service: Object, seconds: float) -> Result:
        health = await asyncio.to_thread(import_module, _GRPC_HEALTH)
        address = f"{self._address}:{service['port']}"
        complaint = await health.health_complaint(address, service["service"], seconds)
        return Result(not complaint, complaint)

    async def _run(self, command: list[str], seconds: float) -> Result:
        try:
            code, output = await self._execute(command, seconds)
        except TimeoutError:
            return Result(False, f'command timed out: "{" ".join(command)}" timed out after {seconds:g}s')
        return Result(code == 0, output)

    def _port(self, wanted: int | str) -> int:
        if isinstance(wanted, int):
            return wanted
        for port in self._container.get("ports") or ():
            if port.get("name") == wanted:
                return int(port["containerPort"])
        if not wanted.isdecimal():
            raise ActionError(f'strconv.Atoi: parsing "{wanted}": invalid syntax')
        if not 0 < int(wanted) <= _LARGEST_PORT:
            raise ActionError(f"invalid port number: {wanted}")
        return int(wanted)


async def _follow(url: str, headers: list[tuple[str, str]]) -> Result:
    """Redirects within the host count by what they lead to."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, ssl=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=["Accept-Encoding"],
    ) as session:
        for _ in range(_MOST_REDIRECTS):
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                body = (await answer.content.read(_LONGEST_BODY_BYTES)).decode(errors="replace")
                if not answer.ok:
                    return Result(False, f"HTTP probe failed with statuscode: {answer.status}", is_answer=True)
                target = answer.headers.get("Location")
                if target is None or answer.status not in {301, 302, 303, 307, 308}:
                    return Result(True)
                there = urljoin(url, target)
                if urlsplit(there).hostname != urlsplit(url).hostname:
                    return Result(True, f"Probe terminated redirects, Response body: {body}", is_warning=True)
                url = there
    return Result(False, f'Get "{url}": stopped after {_MOST_REDIRECTS} redirects')


def _url(scheme: str, host: str, port: int, path: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}/{path.removeprefix('/')}"


def _headers(request: Object) -> list[tuple[str, str]]:
    given = [(one["name"], one.get("value", "")) for one in request.get("httpHeaders") or ()]
    names = {name.lower() for name, _ in given}
    usual = {"User-Agent": _USER_AGENT, "Accept": "*/*"}
    return [*given, *((name, value) for name, value in usual.items() if name.lower() not in names)]


def _dial_message(host: str, port: int, error: OSError) -> str:
    why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    return f"dial tcp {host}:{port}: connect: {why}"
