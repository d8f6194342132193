"""What a gateway says of a token is not repeated."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_llmtune.exceptions import DeploymentFailedError
from airflow_llmtune.operators import endpoint
from airflow_llmtune.resources.smoke_test import SmokeTest

TOKEN = "pl4nted-token"


class Gateway(http.server.BaseHTTPRequestHandler):
    """Refuses each token, and says which one that was."""

    code = 401

    def do_POST(self) -> None:
        body = f"{self.headers['Authorization']} is not known".encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("code", [401, 503])
def test_a_refused_token_is_neither_raised_nor_logged(address, monkeypatch, code):
    monkeypatch.setattr(Gateway, "code", code)
    monkeypatch.setattr(endpoint, "RETRY_SECONDS", 2.0)
    monkeypatch.setattr(endpoint, "PAUSE_SECONDS", 2.0)
    lines: list[str] = []
    test = SmokeTest("chat", "/v1", "Hello", 16, None)
    with pytest.raises(DeploymentFailedError, match=r"Bearer \*\*\* is not known") as caught:
        endpoint.ask(address, test, TOKEN, lambda text, *values: lines.append(text % values))
    assert TOKEN not in f"{caught.value} {lines}"
    assert len(lines) == (1 if code == 503 else 0)
