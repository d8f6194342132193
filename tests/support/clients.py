"""Clients of a control plane: plain HTTP, and short ways to its objects through the Python client."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import httpx
import yaml
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient

from airflow_llmtune.controlplane.apiserver.kinds import Kind
from objects import Object
from waiting import wait_for


def http_client(kubeconfig: str) -> httpx.Client:
    """With the address, the authority and the token of a kubeconfig's text."""
    config = yaml.safe_load(kubeconfig)
    cluster = config["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return httpx.Client(
        base_url=cluster["server"],
        verify=ssl.create_default_context(cadata=authority),
        headers={"authorization": f"Bearer {config['users'][0]['user']['token']}"},
        timeout=30,
    )


class Cluster:
    """The objects of the namespace ``default``."""

    def __init__(self, kubeconfig: Path) -> None:
        self._api: ApiClient = new_client_from_config(str(kubeconfig))
        self._client = DynamicClient(self._api)

    def close(self) -> None:
        self._api.close()

    def _resource(self, kind: Kind) -> Any:
        return self._client.resources.get(api_version=kind.api_version, kind=kind.name)

    def create(self, kind: Kind, body: Object) -> None:
        self._resource(kind).create(body=body, namespace="default")

    def list(self, kind: Kind, selector: str = "") -> list[Object]:
        found = self._resource(kind).get(namespace="default", label_selector=selector).to_dict()["items"]
        return list(found)

    def find(self, kind: Kind, name: str) -> Object | None:
        return next((one for one in self.list(kind) if one["metadata"]["name"] == name), None)

    def delete(self, kind: Kind, name: str) -> None:
        self._resource(kind).delete(name=name, namespace="default")

    def log(self, pod: str, **options: Any) -> str:
        # Raw: the client's own decoding prints bytes as b'…'.
        answer = CoreV1Api(self._api).read_namespaced_pod_log(pod, "default", _preload_content=False, **options)
        return str(answer.data.decode())

    def ended(self, kind: Kind, name: str, *types: str, seconds: float = 60) -> Object:
        """The condition that ended it, once one of these is true."""

        def end() -> Object | None:
            conditions = (self.find(kind, name) or {}).get("status", {}).get("conditions") or []
            return next((one for one in conditions if one["type"] in types and one["status"] == "True"), None)

        found: Object = wait_for(end, seconds)
        return found
