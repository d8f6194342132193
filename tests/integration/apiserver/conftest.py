"""An API server over real HTTPS, alone: no controllers, no admission, a log of fixed lines."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes
import pytest

from airflow_llmtune.controlplane.apiserver.app import ApiServer
from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.faults import Faults
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.logs import LogOptions
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.certificates import issue
from airflow_llmtune.controlplane.clock import utc_now
from airflow_llmtune.controlplane.kubeconfig import kubeconfig
from airflow_llmtune.controlplane.loop_thread import LoopThread
from airflow_llmtune.controlplane.server import HttpsServer
from airflow_llmtune.controlplane.store import Store
from registries import AdmitAll

TOKEN = "test-token"


class FixedLogs:
    def open_log(self, namespace: str, pod_name: str, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        if container == "waiting":
            raise bad_request('container "waiting" in pod "p" is waiting to start: ContainerCreating')
        lines = [b"one\n", b"two\n"] if options.follow else [b"one\n", b"two\n", b"three\n"]
        return self._stream(b"".join(lines[-(options.tail_lines or 0) :])[: options.limit_bytes])

    async def _stream(self, text: bytes) -> AsyncIterator[bytes]:
        for line in text.splitlines(keepends=True):
            yield line
            await asyncio.sleep(0.01)


class Served:
    """An API server that is up, and clients for it."""

    def __init__(self, folder: Path) -> None:
        self.thread = LoopThread("api server under test")
        self.faults = Faults()
        self.registry = Registry(Store(history_limit=500, first_revision=1000), AdmitAll())
        self.thread.call(self.registry.create, NAMESPACE, {"metadata": {"name": "default"}})
        self.api = ApiServer(self.registry, FixedLogs(), token=TOKEN, faults=self.faults, clock=utc_now)
        certificate = issue("127.0.0.1")
        self.server = HttpsServer(self.api, "127.0.0.1", 0, certificate)
        port = self.thread.run(self.server.start())
        self.url = f"https://127.0.0.1:{port}"
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(certificate.authority)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(kubeconfig(self.url, TOKEN, certificate.authority, "default"))
        self.tls = ssl.create_default_context(cafile=str(self.ca))
        self.tls.verify_flags |= ssl.VERIFY_X509_STRICT
        self.http = httpx.Client(
            base_url=self.url, verify=self.tls, headers={"authorization": f"Bearer {TOKEN}"}, timeout=10
        )

    def stop(self) -> None:
        self.http.close()
        self.thread.run(self.server.stop())
        self.thread.stop()

    def create_config_map(self, name: str, **data: str) -> dict[str, Any]:
        answer = self.http.post(
            "/api/v1/namespaces/default/configmaps", json={"metadata": {"name": name}, "data": data}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()


@pytest.fixture
def serve() -> type[Served]:
    """For tests that start and stop it themselves."""
    return Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def client(served: Served) -> Iterator[kubernetes.client.ApiClient]:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(served.kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as api_client:
        yield api_client
