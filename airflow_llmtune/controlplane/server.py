"""Serving on loopback: uvicorn around an application, with a start that fails clearly and a stop that is quick."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from airflow_llmtune.controlplane.apiserver.app import ApiServer
    from airflow_llmtune.controlplane.certificates import ServerCertificate

_POLL_SECONDS = 0.01
_GRACE_SECONDS = 2
# Longer than clients keep an unused connection: one that the server closes first may just be getting a request.
_IDLE_SECONDS = 300
_HEADER_BYTES = 64 * 1024


class StartError(Exception):
    """The control plane cannot start; the message says what to change."""


def check_loopback(host: str) -> None:
    """Refuse to serve beyond this machine: whoever reaches the server and has the token can run programs."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise StartError(f"host {host!r} is not a loopback address: use 127.0.0.1, ::1 or localhost")


def bind(host: str, port: int) -> socket.socket:
    # The protocol is named, as asyncio turns off Nagle's algorithm (40 ms for each answer) only where it is.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        raise StartError(f"cannot listen on {host}:{port}: {why}; choose another port, or 0 for any") from error
    return listener


def base_url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def still_free(host: str, port: int) -> int:
    """The port, or 0 (any) when something else has taken it meanwhile."""
    try:
        bind(host, port).close()
    except StartError:
        return 0
    return port


class HttpServer:
    """Serves one application on one socket, in the clear; ``port`` is the bound one."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        """Takes the port; raises StartError when it cannot be had."""
        self._app = app
        self._listener = bind(host, port)
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Let go of the port of a server that was not started."""
        self._listener.close()

    async def start(self) -> int:
        """Returns the bound port once requests are answered."""
        server = self._server = uvicorn.Server(self._config())
        self._task = asyncio.create_task(server.serve(sockets=[self._listener]), name=type(self).__name__)
        while not server.started:
            if self._task.done():
                await self._task
                raise StartError("the HTTP server ended while it was starting")
            await asyncio.sleep(_POLL_SECONDS)
        return self.port

    async def stop(self) -> None:
        """Requests are completed, for a moment; what still runs then is broken off."""
        if self._server is None or self._task is None:
            self.close()
            return
        self._server.should_exit = True
        while not self._task.done():
            self._end_streams()
            if not self._server.server_state.tasks:
                self._drop_idle_connections(self._server)
            await asyncio.wait({self._task}, timeout=_POLL_SECONDS)
        await self._task
        self.close()

    def _end_streams(self) -> None:
        """Called again and again while it stops, since one may be opened until the socket is closed."""

    def _drop_idle_connections(self, server: uvicorn.Server) -> None:
        """Without a farewell: under TLS, a client that keeps an unused connection would not answer it for 30 s."""
        for connection in list(server.server_state.connections):
            connection.transport.abort()

    def _config(self) -> uvicorn.Config:
        return self._configured()

    def _configured(self, **more: Any) -> uvicorn.Config:
        return uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            # Whoever connects is the client, whatever a header says.
            proxy_headers=False,
            ws="none",
            # Nothing of the server's on stdout or stderr: the application logs what went wrong.
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_keep_alive=_IDLE_SECONDS,
            **more,
        )


class GatewayServer(HttpServer):
    """With limits for what a header may hold; the pod's answer brings its own date."""

    def _config(self) -> uvicorn.Config:
        return self._configured(http="h11", h11_max_incomplete_event_size=_HEADER_BYTES, date_header=False)


class HttpsServer(HttpServer):
    """Serves the Kubernetes API, under TLS."""

    def __init__(self, api: ApiServer, host: str, port: int, certificate: ServerCertificate) -> None:
        super().__init__(api, host, port)
        self._api = api
        self._certificate = certificate
        api.abort_connection = self._abort

    def _end_streams(self) -> None:
        """Open watches and logs end as at a server's timeout."""
        self._api.streams.end_all()

    def _abort(self, client: tuple[str, int]) -> None:
        for connection in list(self._server.server_state.connections) if self._server else ():
            if connection.client == client:
                connection.transport.abort()

    def _config(self) -> uvicorn.Config:
        # Files only because the ssl module reads nothing else; gone as soon as they are read.
        with tempfile.TemporaryDirectory(prefix="llmtune-tls-") as folder:
            certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            certificate.write_bytes(self._certificate.certificate)
            key.write_bytes(self._certificate.key)
            config = self._configured(ssl_certfile=str(certificate), ssl_keyfile=str(key))
            config.load()
        return config
