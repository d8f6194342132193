"""One asynchronous client for every kind: Experiment, Trial, Job, PyTorchJob, Pod.

Workers run it by ``asyncio.run``, triggers await it, so there is no synchronous twin. Objects are plain dicts on the
wire; no SDK model is needed at run time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import tenacity
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.sdk.exceptions import AirflowException
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from yaml import YAMLError

from airflow_llmtune.exceptions import INVALID_CONFIGURATION, ForeignObjectError, KubernetesApiError
from airflow_llmtune.hooks.answer import read_error, status_error
from airflow_llmtune.resources import pod
from airflow_llmtune.resources.meta import IDENTITY_LABEL, ResourceKind

__all__ = ["KubeflowClient", "KubeflowHook"]

JSON = dict[str, Any]

PAGE_SIZE = 500
MERGE_PATCH = "application/merge-patch+json"
# JSON is YAML, and the API server has no other name for this patch.
APPLY_PATCH = "application/apply-patch+yaml"
FIELD_MANAGER = "airflow-llmtune"
log = logging.getLogger(__name__)
REQUEST_LIMITS = aiohttp.ClientTimeout(total=60)


class KubeflowHook(AsyncKubernetesHook):  # type: ignore[misc]  # the provider ships no types
    """
    Connects to Kubernetes with an Airflow connection of type ``kubernetes``.

    Unlike its base it honours ``config_file`` and, with nothing configured, falls back to the pod's own
    service account.

    :param kubernetes_conn_id: the connection; ``None`` for none. A missing ``kubernetes_default`` counts as empty.
    :param config_file: path of a kubeconfig; goes before whatever the connection says.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the pod's own service account.
    :param api_retry_timeout: seconds for which a request that fails in passing (no answer, 401, 429, 5xx) is retried.
    """

    hook_name = "Kubeflow"

    def __init__(
        self,
        kubernetes_conn_id: str | None = AsyncKubernetesHook.default_conn_name,
        *,
        config_file: str | None = None,
        cluster_context: str | None = None,
        in_cluster: bool | None = None,
        api_retry_timeout: float = 60.0,
    ) -> None:
        super().__init__(
            kubernetes_conn_id=kubernetes_conn_id,
            config_file=config_file,
            cluster_context=cluster_context,
            in_cluster=in_cluster,
        )
        self.api_retry_timeout = api_retry_timeout

    async def _get_field(self, field_name: str) -> Any:
        """Let the arguments of the task go before the fields of the connection."""
        if field_name == "kube_config_path" and self.config_file is not None:
            return self.config_file
        if field_name in {"kube_config", "in_cluster"} and self.config_file is not None:
            return None
        if field_name in {"kube_config", "kube_config_path"} and self.in_cluster:
            return None
        # The connection form stores a field left empty as "".
        return await super()._get_field(field_name) or None

    async def _load_config(self) -> None:
        try:
            if await self._is_unconfigured():
                self.in_cluster = True
            await super()._load_config()
        except (ConfigException, AirflowException, YAMLError, OSError, TypeError, ValueError) as error:
            source = self.config_file or f"the connection {self.conn_id!r}"
            raise KubernetesApiError(
                f"No usable Kubernetes configuration in {source}: {_tell(error)}. Fix: set `config_file`, or "
                f"`kube_config_path` of the connection, to a kubeconfig that this process can read",
                reason=INVALID_CONFIGURATION,
            ) from error
        if str(await self._get_field("disable_verify_ssl")).lower() == "true":
            self.client_configuration.verify_ssl = False

    async def _is_unconfigured(self) -> bool:
        for name in ("in_cluster", "kube_config_path", "kube_config"):
            if await self._get_field(name):
                return False
        return not self.in_cluster and not _has_default_kubeconfig() and "KUBERNETES_SERVICE_HOST" in os.environ

    async def default_namespace(self) -> str:
        """Return the namespace that the connection names, else ``default``."""
        return str(await self._get_field("namespace") or "default")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[KubeflowClient]:
        """Open one connection pool and keep it for the whole block."""
        async with self.get_conn() as api:
            yield KubeflowClient(api, self.api_retry_timeout, self._renew_credentials)
        # Sockets that were just closed are let go in the loop's next round.
        await asyncio.sleep(0)

    async def _renew_credentials(self) -> None:
        """Load the configuration again, into the same object that open clients read their token from."""
        self._config_loaded = False
        await self._load_config()


class KubeflowClient:
    """
    Create, read, change, delete and watch objects of any kind.

    Every failure is a :class:`KubernetesApiError` that carries the server's ``Status``. Requests that fail in passing
    are repeated with back-off for ``retry_timeout`` seconds; a watch is not, since its caller must list again first.
    """

    def __init__(self, api: ApiClient, retry_timeout: float, renew_credentials: Callable[[], Awaitable[None]]) -> None:
        self._api = api
        self._retry_timeout = retry_timeout
        self._renew_credentials = renew_credentials

    async def create(self, kind: ResourceKind, namespace: str, manifest: JSON, *, dry_run: bool = False) -> JSON:
        query = {"fieldValidation": "Strict"} if kind.strict else {}
        if dry_run:
            query["dryRun"] = "All"
        return await self._json("POST", kind.path(namespace), query=query, body=manifest)

    async def create_or_adopt(self, kind: ResourceKind, namespace: str, manifest: JSON) -> tuple[JSON, bool]:
        """
        Create the object, or take the one of that name when it carries the same identity label.

        :returns: the object, and whether it was created now.
        :raises ForeignObjectError: the name is taken by somebody else's object.
        """
        try:
            return await self.create(kind, namespace, manifest), True
        except KubernetesApiError as error:
            if error.reason != "AlreadyExists":
                raise
        metadata = manifest["metadata"]
        existing = await self.get(kind, namespace, metadata["name"])
        labels = existing["metadata"].get("labels") or {}
        if labels.get(IDENTITY_LABEL) != metadata["labels"][IDENTITY_LABEL]:
            owner = ", ".join(f"{key}={labels[key]}" for key in ("dag_id", "task_id", "run_id") if key in labels)
            raise ForeignObjectError(
                f"{kind.kind} {metadata['name']!r} exists in namespace {namespace!r} and was not created by this "
                f"task; it belongs to {owner or 'somebody outside Airflow'}. "
                f"Fix: delete or rename it, or give this task another namespace"
            )
        return existing, False

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> JSON:
        return await self._json("GET", kind.path(namespace, name))

    async def find(self, kind: ResourceKind, namespace: str, name: str) -> JSON | None:
        """Return the object, or None when there is none."""
        try:
            return await self.get(kind, namespace, name)
        except KubernetesApiError as error:
            if error.code == 404:
                return None
            raise

    async def list_all(
        self, kind: ResourceKind, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[JSON], str]:
        """Read all pages; return the objects and the resourceVersion from which a watch continues."""
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": PAGE_SIZE}
        items: list[JSON] = []
        while True:
            page = await self._json("GET", kind.path(namespace), query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, metadata.get("resourceVersion", "")
            query["continue"] = metadata["continue"]

    async def patch(self, kind: ResourceKind, namespace: str, name: str, patch: JSON) -> JSON:
        """Apply a JSON merge patch (RFC 7386)."""
        return await self._json("PATCH", kind.path(namespace, name), body=patch, content_type=MERGE_PATCH)

    async def apply(
        self, kind: ResourceKind, namespace: str, manifest: JSON, *, force: bool = False, dry_run: bool = False
    ) -> JSON:
        """
        Create or change the object by server-side apply: fields that we applied before and leave out now go away.

        :param force: take the fields that another manager of the object has set otherwise.
        :param dry_run: return what would be, and change nothing.
        :raises KubernetesApiError: reason Conflict, with the fields and their managers as ``causes``.
        """
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        path = kind.path(namespace, manifest["metadata"]["name"])
        return await self._json("PATCH", path, query=query, body=manifest, content_type=APPLY_PATCH)

    async def delete(self, kind: ResourceKind, namespace: str, name: str, *, uid: str | None = None) -> bool:
        """
        Delete the object and, in the background, all it owns.

        :param uid: delete only this incarnation; another object of the same name is left alone.
        :returns: False when it was gone already, or when the name now belongs to another incarnation.
        """
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._json("DELETE", kind.path(namespace, name), body=options)
        except KubernetesApiError as error:
            if error.code in {404, 409}:
                return False
            raise
        return True

    async def watch(
        self,
        kind: ResourceKind,
        namespace: str,
        *,
        resource_version: str,
        field_selector: str = "",
        label_selector: str = "",
        timeout_seconds: int,
    ) -> AsyncGenerator[tuple[str, JSON], None]:
        """
        Stream ``(type, object)`` until the server ends the watch; bookmarks included.

        :raises KubernetesApiError: code 410 when ``resource_version`` is too old to continue from.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "fieldSelector": field_selector,
            "labelSelector": label_selector,
            "timeoutSeconds": timeout_seconds,
        }
        # The read timeout lies above the server's own, so that only a dead connection trips it.
        limits = aiohttp.ClientTimeout(sock_connect=30, sock_read=timeout_seconds + 30)
        async with self._open("GET", kind.path(namespace), query=query, limits=limits) as response:
            try:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise status_error(event["object"], self._api.configuration.host)
                    yield event["type"], event["object"]
            finally:
                # Left in the middle, it is cut: a polite end of TLS would take longer than a worker's event loop lives.
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()

    async def read_log(self, namespace: str, name: str, container: str, *, tail_lines: int) -> str:
        """Return the last lines that a container printed."""
        query = {"container": container, "tailLines": tail_lines}
        async with self._open("GET", pod.KIND.path(namespace, name) + "/log", query=query) as response:
            return (await response.read()).decode(errors="replace")

    async def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: JSON | None = None,
        content_type: str = "application/json",
    ) -> JSON:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, KubernetesApiError) and error.transient),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            stop=tenacity.stop_after_delay(self._retry_timeout),
            before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                async with self._open(method, path, query=query, body=body, content_type=content_type) as response:
                    result: JSON = await response.json()
        return result

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: JSON | None = None,
        content_type: str = "application/json",
        limits: aiohttp.ClientTimeout = REQUEST_LIMITS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response = await self._api.call_api(
                path,
                method,
                query_params=[(key, str(value)) for key, value in (query or {}).items() if value != ""],
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=limits,
            )
            async with response:
                if response.status == 401:
                    # Tokens of exec plugins (EKS, GKE, AKS) live for minutes; the repeat goes out with a new one.
                    await self._renew_credentials()
                if response.status >= 400:
                    raise await read_error(response, self._api.configuration.host)
                yield response
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: a body that is no JSON, or was cut off. Also raised while the caller reads it.
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> KubernetesApiError:
        host = self._api.configuration.host
        return KubernetesApiError(
            f"The Kubernetes API server at {host} cannot be reached: {error or type(error).__name__}. Fix: check that "
            f"it runs and that the connection or `config_file` of this task points to it",
            reason="Unreachable",
        )


def _tell(error: Exception) -> str:
    # PyYAML quotes the line that it cannot read, and that may hold a token.
    text = getattr(error, "problem", "it is no YAML") if isinstance(error, YAMLError) else str(error)
    return f"{type(error).__name__}: {text}"


def _has_default_kubeconfig() -> bool:
    paths = KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep)
    return any(Path(path).expanduser().exists() for path in paths)
