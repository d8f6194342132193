"""moto's S3 on loopback, with a list of the requests and with answers that a test may change."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response


class S3:
    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []  # method and path, in order
        self.damages: dict[str, int] = {}  # path -> how many of its downloads have other bytes of the same number
        self.refusals: dict[str, tuple[int, str]] = {}  # start of `METHOD /path ` -> status and code
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """Return what points boto3 here, and at nothing of the developer's own."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "a-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def begin_anew(self, bucket: str) -> None:
        """Hold this bucket, empty, and nothing else. moto keeps what it holds for the whole process."""
        held = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        held.reset()
        held.create_bucket(bucket, "us-east-1")
        self.damages.clear()
        self.refusals.clear()
        self.requests.clear()

    def age(self, bucket: str, seconds: float, prefix: str = "") -> None:
        """Have the objects be written so much longer ago."""
        for name, key in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].keys.items():
            if name.startswith(prefix):
                key.last_modified -= timedelta(seconds=seconds)

    def downloads(self) -> list[str]:
        return [request.removeprefix("GET ") for request in self.requests if _is_of_object(request)]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        line = f"{request.method} {request.path}"
        with self._lock:
            self.requests.append(line)
        for start, (status, code) in self.refusals.items():
            if f"{line} ".startswith(start):
                body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>"
                return Response(body, status, content_type="application/xml")(environ, start_response)
        response = Response.from_app(self._moto, environ)
        if request.method == "GET" and self._is_to_damage(request.path):
            response.set_data(bytes(len(response.get_data())))
        return response(environ, start_response)

    def _is_to_damage(self, path: str) -> bool:
        with self._lock:
            left = self.damages.get(path, 0)
            self.damages[path] = left - 1
            return left > 0


def _is_of_object(request: str) -> bool:
    method, path = request.split(" ", 1)
    return method == "GET" and path.strip("/").count("/") > 0


@contextmanager
def running_s3() -> Iterator[S3]:
    s3 = S3()
    server = make_server("127.0.0.1", 0, s3, threaded=True)
    s3.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
