"""The gateway over real HTTP: routes, weights, streams, pods that come and go. Pods are servers on this test's loop."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE, NAMESPACE, POD, SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.gateway import Gateway, destinations
from airflow_llmtune.controlplane.server import GatewayServer, HttpServer
from airflow_llmtune.controlplane.store import Store
from objects import Object

TOKEN = "secret-of-the-plane"
MODEL = "/serving/default/model"

Answer = Callable[["Request"], Awaitable[None]]


class Request:
    """What a pod got, and how it answers."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.receive = receive
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.target = scope["raw_path"].decode() + (f"?{query}" if (query := scope["query_string"].decode()) else "")
        self._send = send

    async def body(self) -> bytes:
        read = b""
        while True:
            message = await self.receive()
            read += message.get("body", b"")
            if not message.get("more_body"):
                return read

    async def start(self, status: int = 200, **headers: str) -> None:
        encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def send(self, body: bytes = b"", *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class Backend:
    """A pod's server; ``answer`` may be exchanged."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.answer: Answer = self.say_name
        self.seen: list[Request] = []
        self.server = HttpServer(self._serve, "127.0.0.1", port)

    async def say_name(self, request: Request) -> None:
        await request.body()
        await request.start()
        await request.send(self.name.encode())

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        self.seen.append(request)
        await self.answer(request)


class World:
    """A gateway, and a registry whose pods are ready as soon as they are made."""

    def __init__(self) -> None:
        store = Store()
        self.registry = Registry(store, KatibAdmission(store))
        self.registry.create(NAMESPACE, {"metadata": {"name": "default"}})
        self.gateway = Gateway(self.registry, token=TOKEN)
        self.servers: list[HttpServer] = [GatewayServer(self.gateway, "127.0.0.1", 0)]

    async def start(self) -> None:
        self.follower = asyncio.create_task(self.gateway.follow())
        port = await self.servers[0].start()
        # Without TLS there is no certificate to verify, and loading the authorities takes its time.
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=10,
            verify=False,
        )

    async def stop(self) -> None:
        await self.http.aclose()
        await asyncio.gather(*(server.stop() for server in self.servers))
        await self.gateway.close()
        self.follower.cancel()

    async def backend(self, name: str, service: str = "model", *, ready: bool = True) -> Backend:
        made = Backend(name)
        self.servers.append(made.server)
        await made.server.start()
        self.pod(name, service, made.server.port, ready=ready)
        return made

    def pod(self, name: str, service: str, port: int, *, ready: bool = True) -> None:
        ports = [{"name": "http", "containerPort": port}]
        spec = {"containers": [{"name": "c", "image": "x", "ports": ports}], "nodeName": "node"}
        metadata = {"name": name, "namespace": "default", "labels": {"app": service}}
        self.registry.create(POD, {"metadata": metadata, "spec": spec})
        self.tell(name, ready=ready)

    def tell(self, name: str, *, ready: bool) -> None:
        pod = self.registry.get(POD, "default", name)
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        pod["status"] |= {"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions}
        self.registry.update_status(POD, pod)

    def delete(self, name: str) -> None:
        """As through the API: it is terminating until its kubelet is done with it, which is not here."""
        self.registry.delete(POD, "default", name)
        assert self.registry.find(POD, "default", name) is not None

    def service(self, name: str = "model") -> None:
        spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]}
        self.registry.create(SERVICE, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})

    def route(self, weights: dict[str, int] | None = None, **rule: Any) -> None:
        refs = [{"name": name, "port": 80, "weight": weight} for name, weight in (weights or {"model": 1}).items()]
        made = {
            "matches": [{"path": {"type": "PathPrefix", "value": MODEL}}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {"path": _WITHOUT_PREFIX}}],
            "backendRefs": refs,
        }
        parents = [{"name": "kserve-ingress-gateway", "namespace": "kserve"}]
        spec = {"parentRefs": parents, "rules": [{**made, **rule}]}
        self.registry.create(HTTP_ROUTE, {"metadata": {"name": "model", "namespace": "default"}, "spec": spec})


_WITHOUT_PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def model(world: World) -> Backend:
    """One Service, one route, one pod."""
    world.service()
    world.route()
    return await world.backend("a")


def error(answer: httpx.Response) -> Object:
    found: Object = answer.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return found


async def test_a_request_reaches_the_pod_below_the_routes_prefix(world: World, model: Backend) -> None:
    answer = await world.http.post(f"{MODEL}/v1/chat/completions?a=%20b", json={"model": "m"})
    assert (answer.status_code, answer.text) == (200, "a")
    assert model.seen[0].target == "/v1/chat/completions?a=%20b"


async def test_the_pod_sees_who_asked_but_never_the_token(world: World, model: Backend) -> None:
    await world.http.get(f"{MODEL}/health", headers={"X-Forwarded-For": "10.0.0.1", "X-Own": "1", "TE": "trailers"})
    seen = model.seen[0].headers
    assert TOKEN not in json.dumps(seen)
    assert {name: value for name, value in seen.items() if name.startswith("x-")} == {
        "x-forwarded-for": "10.0.0.1, 127.0.0.1",
        "x-forwarded-host": world.http.base_url.netloc.decode(),
        "x-forwarded-proto": "http",
        "x-own": "1",
    }
    assert seen["host"] == world.http.base_url.netloc.decode()
    assert not seen.keys() & {"authorization", "te"}


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer nobody", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
async def test_a_request_without_the_token_is_refused(world: World, model: Backend, sent: str) -> None:
    answer = await world.http.get(f"{MODEL}/health", headers={"Authorization": sent})
    assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert model.seen == []


async def test_a_new_token_counts_from_then_on(world: World, model: Backend) -> None:
    world.gateway.accept_token("next")
    assert (await world.http.get(f"{MODEL}/health")).status_code == 401
    answer = await world.http.get(f"{MODEL}/health", headers={"Authorization": "Bearer next"})
    assert answer.status_code == 200


async def test_what_no_route_matches_is_not_found(
    world: World, model: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = await world.http.get("/serving/default/models")
    assert (answer.status_code, error(answer)["code"]) == (404, "not_found")
    assert caplog.messages == [f"GET /serving/default/models: 404, {error(answer)['message']}"]


@pytest.mark.parametrize("rest", ["../../other", "a/./b", "%2E%2e/other", "a/.", ".%2e"])
async def test_a_path_does_not_lead_out_of_what_a_route_matches(world: World, model: Backend, rest: str) -> None:
    reader, writer = await asyncio.open_connection(world.http.base_url.host, world.http.base_url.port)
    writer.write(f"GET {MODEL}/{rest} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    assert model.seen == []


async def test_names_with_dots_are_names(world: World, model: Backend) -> None:
    assert (await world.http.get(f"{MODEL}/v1/models/.hidden/llama-3..1")).status_code == 200


async def test_weights_are_kept_exactly(world: World) -> None:
    world.route({"stable": 90, "canary": 10})
    for name in ("stable", "canary"):
        world.service(name)
        await world.backend(name, name)
    answers = [(await world.http.get(f"{MODEL}/v1/models")).text for _ in range(50)]
    assert Counter(answers) == {"stable": 45, "canary": 5}
    assert all(Counter(answers[start : start + 10])["canary"] == 1 for start in range(0, 50, 10))


async def test_pods_of_a_service_take_turns_and_a_busy_one_is_spared(world: World, model: Backend) -> None:
    await world.backend("b")
    assert Counter([(await world.http.get(MODEL)).text for _ in range(10)]) == {"a": 5, "b": 5}
    asked, done = asyncio.Event(), asyncio.Event()

    async def take_long(request: Request) -> None:
        asked.set()
        await done.wait()
        await model.say_name(request)

    model.answer = take_long
    long = asyncio.create_task(world.http.get(MODEL))
    await asked.wait()
    assert {(await world.http.get(MODEL)).text for _ in range(4)} == {"b"}
    done.set()
    assert (await long).text == "a"


async def test_each_piece_of_an_answer_arrives_before_the_next_is_sent(world: World, model: Backend) -> None:
    heard = asyncio.Queue[None]()

    async def stream(request: Request) -> None:
        await request.start(content_type="text/event-stream")
        for number in range(3):
            await request.send(f"data: {number}\n\n".encode(), more=True)
            await heard.get()
        await request.send()

    model.answer = stream
    pieces = []
    async with world.http.stream("GET", f"{MODEL}/v1/completions") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for piece in answer.aiter_raw():
            pieces.append(piece)
            heard.put_nowait(None)
    assert pieces == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_each_piece_of_a_request_arrives_before_the_next_is_sent(world: World, model: Backend) -> None:
    heard = asyncio.Queue[bytes]()

    async def listen(request: Request) -> None:
        while (message := await request.receive())["more_body"]:
            heard.put_nowait(message["body"])
        await request.start()
        await request.send(b"heard")

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            yield piece
            assert await heard.get() == piece

    model.answer = listen
    answer = await world.http.post(f"{MODEL}/v1/files", content=body())
    assert answer.text == "heard"
    assert model.seen[0].headers["transfer-encoding"] == "chunked"


async def test_a_client_that_goes_away_ends_the_pods_work(world: World, model: Backend) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(request: Request) -> None:
        await request.body()
        begun.set()
        assert (await request.receive())["type"] == "http.disconnect"
        ended.set()

    model.answer = work
    asking = asyncio.create_task(world.http.post(f"{MODEL}/v1/completions", json={}))
    await begun.wait()
    asking.cancel()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_client_that_goes_away_in_the_middle_of_its_body_ends_the_pods_work(
    world: World, model: Backend
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(request: Request) -> None:
        begun.set()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        ended.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.Event().wait()

    model.answer = work
    asking = asyncio.create_task(world.http.post(f"{MODEL}/v1/completions", content=body()))
    await begun.wait()
    asking.cancel()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_an_answer_that_breaks_off_does_not_look_complete(world: World, model: Backend) -> None:
    async def break_off(request: Request) -> None:
        await request.start()
        await request.send(b"half", more=True)
        raise RuntimeError

    model.answer = break_off
    with pytest.raises(httpx.RemoteProtocolError):
        await world.http.get(MODEL)


@pytest.mark.parametrize("status", ["101 Switching Protocols", "999 Odd", "000 Odd"])
async def test_a_status_that_cannot_be_passed_on_is_told_as_such(world: World, status: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    world.service()
    world.route()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        world.pod("odd", "model", server.sockets[0].getsockname()[1])
        answered = await world.http.get(MODEL)
    assert answered.status_code == 502
    assert error(answered)["message"].startswith("pod odd did not answer in HTTP: ")


async def test_errors_of_the_pod_are_passed_on_as_they_are(world: World, model: Backend) -> None:
    async def refuse(request: Request) -> None:
        await request.start(429, retry_after="7", connection="x-hop", x_hop="1")
        await request.send(b"slow down")

    model.answer = refuse
    answer = await world.http.get(MODEL)
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (429, "slow down", "7")
    assert "x-hop" not in answer.headers


async def test_head_and_no_content_have_no_body(world: World, model: Backend) -> None:
    async def empty(request: Request) -> None:
        is_head = request.scope["method"] == "HEAD"
        await request.start(200 if is_head else 204, **({"content_length": "5"} if is_head else {}))
        await request.send()

    model.answer = empty
    assert (await world.http.head(MODEL)).headers["content-length"] == "5"
    assert (await world.http.delete(MODEL)).status_code == 204


async def test_without_a_ready_pod_the_answer_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "_WAIT_SECONDS", 0.1)
    world.service()
    world.route()
    await world.backend("a", ready=False)
    answer = await world.http.get(MODEL)
    assert (answer.status_code, error(answer)["type"], answer.headers["retry-after"]) == (503, "server_error", "1")
    assert error(answer)["message"] == "no ready pod answers at port 80 of Service default/model"


async def test_a_request_waits_for_a_pod_that_is_about_to_be_ready(world: World) -> None:
    world.service()
    world.route()
    await world.backend("a", ready=False)
    asking = asyncio.create_task(world.http.post(MODEL, json={}))
    await asyncio.sleep(0.05)
    assert not asking.done()
    world.tell("a", ready=True)
    assert (await asking).text == "a"


async def test_a_pod_that_refuses_the_connection_is_passed_over(
    world: World, model: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    world.pod("gone", "model", port)
    answers = [await world.http.post(MODEL, json={}) for _ in range(4)]
    assert {answer.text for answer in answers} == {"a"}
    monkeypatch.setattr(destinations, "_WAIT_SECONDS", 0.2)
    world.delete("a")
    alone = await world.http.post(MODEL, json={})
    assert alone.status_code == 503
    assert error(alone)["message"].endswith("Service default/model; pod gone: Connection refused")


async def test_a_request_waits_for_a_pod_that_does_not_listen_yet(world: World) -> None:
    world.service()
    world.route()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world.pod("late", "model", port)
    asking = asyncio.create_task(world.http.post(MODEL, json={}))
    await asyncio.sleep(0.05)
    assert not asking.done()
    late = Backend("late", port)
    world.servers.append(late.server)
    await late.server.start()
    assert (await asking).text == "late"


async def broken_connection(request: Request) -> None:
    """Closed without a byte, as by a server that stops before it has read the request."""
    transport = request.receive.__self__.transport
    transport.close()


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("PUT", 200), ("POST", 502)])
async def test_a_request_without_an_answer_is_sent_again_only_where_that_does_no_harm(
    world: World, model: Backend, method: str, status: int
) -> None:
    await world.backend("b")
    model.answer = broken_connection
    answers = [await world.http.request(method, MODEL, content=b"x") for _ in range(2)]
    assert sorted(answer.status_code for answer in answers) == [200, status]


async def test_a_request_that_ends_servers_does_not_go_to_all_of_them(world: World, model: Backend) -> None:
    pods = [model, *[await world.backend(name) for name in "bcd"]]
    for pod in pods:
        pod.answer = broken_connection
    assert (await world.http.get(MODEL)).status_code == 502
    assert sum(len(pod.seen) for pod in pods) == 2


async def test_a_request_that_a_pod_was_lost_with_goes_out_once_only(world: World, model: Backend) -> None:
    other = await world.backend("b")

    async def die(request: Request) -> None:
        world.tell("a", ready=False)
        await broken_connection(request)

    model.answer = die
    assert (await world.http.post(MODEL, json={})).status_code == 502
    assert other.seen == []


async def test_a_request_that_a_stopping_pod_did_not_read_goes_to_another(world: World, model: Backend) -> None:
    await world.backend("b")

    async def stop(request: Request) -> None:
        assert await request.body() == b"the whole body"
        world.delete("a")
        await broken_connection(request)

    model.answer = stop
    answers = [await world.http.post(MODEL, content=b"the whole body") for _ in range(3)]
    assert [answer.text for answer in answers] == ["b", "b", "b"]
    assert len(model.seen) == 1


async def test_a_pod_that_takes_longer_than_the_routes_timeout_is_given_up(world: World) -> None:
    world.service()
    world.route(timeouts={"request": "50ms"})
    backend = await world.backend("a")

    async def be_slow(request: Request) -> None:
        assert (await request.receive())["type"] == "http.request"
        await request.receive()

    backend.answer = be_slow
    answer = await world.http.get(MODEL)
    assert (answer.status_code, error(answer)["code"]) == (504, "gateway_timeout")


async def test_pods_are_replaced_under_requests_and_none_fails(world: World, model: Backend) -> None:
    seen: list[tuple[int, str]] = []
    stopped = asyncio.Event()

    async def ask_on() -> None:
        while not stopped.is_set():
            answer = await world.http.post(f"{MODEL}/v1/completions", json={"prompt": "x" * 2000})
            seen.append((answer.status_code, answer.text))

    async def answers_of(name: str) -> None:
        async with asyncio.timeout(10):
            while (200, name) not in seen[-3:]:
                await asyncio.sleep(0.005)

    clients = [asyncio.create_task(ask_on()) for _ in range(3)]
    running = {"a": model}
    for old, new in zip("abcdef", "bcdefg", strict=True):
        await answers_of(old)
        running[new] = await world.backend(new)
        world.delete(old)
        await running[old].server.stop()
    await answers_of("g")
    stopped.set()
    await asyncio.gather(*clients)
    assert {status for status, _ in seen} == {200}


async def test_headers_are_set_as_the_route_says(world: World) -> None:
    world.service()
    set_name = {"set": [{"name": "KServe-Isvc-Name", "value": "model"}], "remove": ["X-Own"]}
    world.route(
        filters=[
            {"type": "RequestHeaderModifier", "requestHeaderModifier": set_name},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "X-Via", "value": "g"}]}},
        ]
    )
    backend = await world.backend("a")
    answer = await world.http.get(f"{MODEL}/x", headers={"X-Own": "1"})
    assert answer.headers["x-via"] == "g"
    assert backend.seen[0].target == f"{MODEL}/x"
    assert backend.seen[0].headers["kserve-isvc-name"] == "model"
    assert "x-own" not in backend.seen[0].headers
