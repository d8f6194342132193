"""Models behind the gateway of a whole control plane: its port, its token, and real processes that come and go."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.plane import StartError
from clients import http_client
from objects import PODS, Object
from waiting import wait_for

ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes"
SERVICES = "/api/v1/namespaces/default/services"
MODEL = "/serving/default/model"

# Stops as a model server does: what has begun is answered, then it ends.
SERVER = """
import signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())

    def log_message(self, *arguments):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = False

server = Server(("127.0.0.1", int(sys.argv[2])), Model)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
server.server_close()
"""


def model_pod(name: str) -> Object:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    container = {
        "name": "model",
        "image": "any",
        "command": [sys.executable, "-c", SERVER, name, str(port)],
        "ports": [{"name": "http", "containerPort": port}],
    }
    return {"metadata": {"name": name, "labels": {"app": "model"}}, "spec": {"containers": [container]}}


def service() -> Object:
    spec = {"selector": {"app": "model"}, "ports": [{"port": 80, "targetPort": "http"}]}
    return {"metadata": {"name": "model"}, "spec": spec}


def route() -> Object:
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": MODEL}}],
        "filters": [
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}
        ],
        "backendRefs": [{"name": "model", "port": 80}],
    }
    parents = [{"name": "kserve-ingress-gateway", "namespace": "kserve"}]
    return {"metadata": {"name": "model"}, "spec": {"parentRefs": parents, "rules": [rule]}}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[httpx.Client]:
    with http_client(plane.kubeconfig) as http:
        http.post(SERVICES, json=service()).raise_for_status()
        http.post(ROUTES, json=route()).raise_for_status()
        yield http


def models(plane: ControlPlane) -> httpx.Client:
    headers = {"Authorization": f"Bearer {plane.token}"}
    return httpx.Client(base_url=plane.gateway_url, headers=headers, timeout=30, verify=False)


def test_pods_are_replaced_while_requests_go_on_and_none_fails(plane: ControlPlane, api: httpx.Client) -> None:
    api.post(PODS, json=model_pod("one")).raise_for_status()
    answers: list[tuple[int, str]] = []
    stopped = threading.Event()

    def ask_on() -> None:
        with models(plane) as http:
            while not stopped.is_set():
                answer = http.post(f"{MODEL}/v1/completions", json={"prompt": "x"})
                answers.append((answer.status_code, answer.text))

    def answered_by(name: str) -> bool:
        return (200, name) in answers[-4:]

    def is_gone(name: str) -> bool:
        return api.get(f"{PODS}/{name}").status_code == 404

    with models(plane) as http:
        # The process is there before it listens; until then no pod can be reached.
        wait_for(lambda: http.post(MODEL, json={}).status_code == 200, 30)
    clients = [threading.Thread(target=ask_on) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for old, new in (("one", "two"), ("two", "three"), ("three", "four")):
            api.post(PODS, json=model_pod(new)).raise_for_status()
            wait_for(lambda new=new: answered_by(new), 30)
            api.delete(f"{PODS}/{old}").raise_for_status()
            wait_for(lambda old=old: is_gone(old), 30)
    finally:
        stopped.set()
        for client in clients:
            client.join()
    assert {status for status, _ in answers} == {200}
    assert answered_by("four")


def test_a_routes_status_says_that_it_is_served(api: httpx.Client) -> None:
    def conditions() -> dict[str, str]:
        parents = api.get(f"{ROUTES}/model").json().get("status", {}).get("parents", [{"conditions": []}])
        return {one["type"]: one["status"] for one in parents[0]["conditions"]}

    assert wait_for(conditions) == {"Accepted": "True", "ResolvedRefs": "True"}


def test_the_token_is_the_planes_and_a_new_one_counts_here_too(plane: ControlPlane) -> None:
    with models(plane) as http:
        assert http.get("/none").status_code == 404
        plane.rotate_token()
        assert http.get("/none").status_code == 401
    with models(plane) as http:
        assert http.get("/none").status_code == 404


def test_the_port_stays_when_the_plane_is_started_again(tmp_path: Path) -> None:
    with ControlPlane(state_dir=tmp_path) as plane:
        url, token = plane.gateway_url, plane.token
    with ControlPlane(state_dir=tmp_path) as plane:
        assert (plane.gateway_url, plane.token) == (url, token)
    port = int(url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        with ControlPlane(state_dir=tmp_path) as plane, models(plane) as http:
            assert plane.gateway_url != url
            assert http.get("/none").status_code == 404
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            ControlPlane(gateway_port=port).start()


def test_a_request_under_way_is_answered_when_the_plane_stops(plane: ControlPlane, api: httpx.Client) -> None:
    """No pod listens: a server of this test takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pod = model_pod("silent")
        pod["spec"]["containers"][0] |= {
            "command": ["sleep", "86399"],
            "ports": [{"name": "http", "containerPort": silent.getsockname()[1]}],
        }
        api.post(PODS, json=pod).raise_for_status()
        answers: list[httpx.Response] = []

        def ask() -> None:
            with models(plane) as http:
                answers.append(http.post(MODEL, json={}))

        asking = threading.Thread(target=ask)
        asking.start()
        connection, _ = silent.accept()
        with connection:
            plane.stop()
            asking.join()
    (answer,) = answers
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the gateway is stopping")
