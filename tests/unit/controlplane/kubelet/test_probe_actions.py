"""What each kind of probe makes of a server."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from airflow_llmtune.controlplane.certificates import issue
from airflow_llmtune.controlplane.kubelet.probe_actions import ActionError, Actions, Result
from objects import Object
from waiting import eventually


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server whose paths say what it answers."""

    async def answer(request: Request) -> Response:
        seen = {name: request.headers.get(name) for name in ("host", "user-agent", "accept", "x-a", "accept-encoding")}
        request.app.state.seen.append((request.url.path, request.url.query, seen))
        code = request.path_params["code"]
        if code == 0:
            await asyncio.sleep(60)
        return PlainTextResponse("body", status_code=code)

    def redirect(request: Request) -> Response:
        return RedirectResponse(request.query_params["to"])

    app = Starlette(routes=[Route("/status/{code:int}", answer), Route("/redirect", redirect)])
    app.state.seen = SEEN
    SEEN.clear()
    server = Server(Config(app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


SEEN: list[tuple[str, str, Object]] = []


async def no_command(command: list[str], seconds: float) -> tuple[int, str]:
    raise AssertionError(command)


def actions(*ports: Object) -> Actions:
    return Actions({"name": "main", "ports": list(ports)}, "127.0.0.1", no_command)


def request(port: int | str, path: str, **fields: Any) -> Object:
    return {"httpGet": {"port": port, "path": path, "scheme": "HTTP", **fields}}


@pytest.mark.parametrize(
    ("path", "is_success", "output"),
    [
        ("/status/200", True, ""),
        ("status/204", True, ""),
        ("/status/304", True, ""),
        ("/status/400", False, "HTTP probe failed with statuscode: 400"),
        ("/status/503", False, "HTTP probe failed with statuscode: 503"),
        ("/redirect?to=/status/200", True, ""),
        ("/redirect?to=/status/404", False, "HTTP probe failed with statuscode: 404"),
        ("/redirect?to=http://localhost/", True, "Probe terminated redirects, Response body: "),
    ],
)
async def test_a_request_succeeds_with_a_status_from_200_to_399(
    port: int, path: str, is_success: bool, output: str
) -> None:
    result = await actions().perform(request(port, path), 5)
    assert (result.is_success, result.output) == (is_success, output)
    assert result.is_warning is (is_success and bool(output))


async def test_redirects_without_end_fail(port: int) -> None:
    result = await actions().perform(request(port, "/redirect?to=/redirect?to=/redirect"), 5)
    assert not result.is_success


async def test_a_request_has_the_headers_that_are_asked_for(port: int) -> None:
    headers = [{"name": "Host", "value": "there"}, {"name": "X-A", "value": "1"}]
    await actions({"name": "http", "containerPort": port}).perform(
        request("http", "/status/200?a=b", httpHeaders=headers), 5
    )
    seen = {"host": "there", "user-agent": "kube-probe/1.34", "accept": "*/*", "x-a": "1", "accept-encoding": None}
    assert [("/status/200", "a=b", seen)] == SEEN


async def test_a_certificate_of_anybody_will_do(tmp_path: Path) -> None:
    issued, files = issue("127.0.0.1"), (tmp_path / "certificate", tmp_path / "key")
    for file, content in zip(files, (issued.certificate, issued.key), strict=True):
        file.write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        assert await actions().perform(request(port, "/", scheme="HTTPS"), 5) == Result(True)
        spoken_plainly = await actions().perform(request(port, "/"), 5)
    assert not spoken_plainly.is_success


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_nobody_there_is_a_failure_that_says_so() -> None:
    nobody = closed_port()
    dial = f"dial tcp 127.0.0.1:{nobody}: connect: connection refused"
    found = [await actions().perform(one, 5) for one in (request(nobody, "/x"), {"tcpSocket": {"port": nobody}})]
    assert found == [Result(False, f'Get "http://127.0.0.1:{nobody}/x": {dial}'), Result(False, dial)]


async def test_a_server_that_takes_too_long_fails(port: int) -> None:
    result = await actions().perform(request(port, "/status/0"), 0.2)
    late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    assert result == Result(False, f'Get "http://127.0.0.1:{port}/status/0": {late}')


@pytest.mark.parametrize("wanted", ["named", "number"])
async def test_a_connection_is_enough_for_a_socket(port: int, wanted: str) -> None:
    known = actions({"name": "named", "containerPort": port})
    assert (await known.perform({"tcpSocket": {"port": "named" if wanted == "named" else str(port)}}, 5)).is_success


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
async def test_a_host_that_there_cannot_be_is_a_failure(port: int, host: str) -> None:
    result = await actions().perform({"tcpSocket": {"port": port, "host": host}}, 5)
    assert not result.is_success
    assert result.output.startswith(f"dial tcp: lookup {host}: ")


async def test_a_fault_of_the_machine_says_nothing_about_the_container() -> None:
    async def full(command: list[str], seconds: float) -> tuple[int, str]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ActionError, match="No space left on device"):
        await Actions({"name": "main"}, "127.0.0.1", full).perform({"exec": {"command": ["true"]}}, 5)


@pytest.mark.parametrize(("name", "text"), [("70000", "invalid port number: 70000"), ("web", 'parsing "web"')])
async def test_a_port_that_is_not_declared_is_an_error(name: str, text: str) -> None:
    with pytest.raises(ActionError, match=text):
        await actions().perform({"tcpSocket": {"port": name}}, 5)


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (b"\x08\x01", ""),
        (b"\x08\x02", 'service unhealthy (responded with "NOT_SERVING")'),
        (grpc.StatusCode.INTERNAL, "error: health rpc probe failed: rpc error: code = Internal desc = no"),
        (None, "timeout: health rpc did not complete within 0.5s"),
    ],
)
async def test_a_health_service_is_asked_how_it_is(answer: bytes | grpc.StatusCode | None, output: str) -> None:
    # Its messages are encoded by hand: a mistake in our descriptors cannot cancel out.
    async def check(request: bytes, context: Any) -> bytes:
        assert request == b"\x0a\x03web"
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "no")
        if answer is None:
            await asyncio.sleep(60)
        return answer

    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    result = await actions().perform({"grpc": {"port": port, "service": "web"}}, 0.5)
    await server.stop(0)
    assert result == Result(not output, output)


async def test_a_server_without_a_health_service_fails() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    result = await actions().perform({"grpc": {"port": port, "service": ""}}, 5)
    await server.stop(0)
    assert "does not implement the grpc health protocol (grpc.health.v1.Health)" in result.output


async def test_no_health_service_at_all_fails() -> None:
    result = await actions().perform({"grpc": {"port": closed_port(), "service": ""}}, 5)
    assert result.output.startswith("error: health rpc probe failed: rpc error: code = Unavailable desc = ")
