"""One asynchronous client for every kind.

Workers run it by ``asyncio.run``, triggers await it, so there is no synchronous twin. Objects are plain dicts on the
wire; no SDK model is needed at run time.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec
import tenacity
from kubernetes_asyncio.client import ApiClient

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.answer import read_error, status_error
from airflow_llmtune.resources import pod
from airflow_llmtune.resources.meta import ResourceKind
from airflow_llmtune.resources.redaction import carries_secret, redacted

__all__ = ["KubeflowClient"]

JSON = dict[str, Any]
Answer = TypeVar("Answer")

# What is decoded in one piece holds up the event loop: the shell of a page of so many bytes takes a millisecond or two.
PAGE_BYTES = 2 * 1024 * 1024
# The size of the objects is known after the first page.
FIRST_PAGE, MAX_PAGE = 20, 500
MERGE_PATCH = "application/merge-patch+json"
# JSON is YAML, and the API server has no other name for this patch.
APPLY_PATCH = "application/apply-patch+yaml"
FIELD_MANAGER = "airflow-llmtune"
REQUEST_LIMITS = aiohttp.ClientTimeout(total=60)
# A watch that outlives its own end by so much is dead, although a proxy may still answer the probes.
OVERDUE_SECONDS = 30
# A watch may be silent for minutes; a peer that went away without a word is found out within one.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
log = logging.getLogger(__name__)


class Page(msgspec.Struct):
    """
    A page of a list, whose objects are decoded one by one as they are looked at.

    All of them at once would hold up the event loop, and be so many that Python searches its whole memory for garbage.
    """

    metadata: JSON = {}
    items: list[msgspec.Raw] | None = None


class KubeflowClient:
    """
    Create, read, change, delete and watch objects of any kind.

    Every failure is a :class:`KubernetesApiError` that carries the server's ``Status``. Requests that fail in passing
    are repeated with back-off for ``retry_timeout`` seconds; a watch is not, since its caller must list again first.
    """

    def __init__(self, api: ApiClient, retry_timeout: float, renew_credentials: Callable[[], Awaitable[None]]) -> None:
        self._api = api
        # An address may hold a password.
        self._host = redacted(api.configuration.host, ())
        self._retry_timeout = retry_timeout
        self._renew_credentials = renew_credentials

    def with_retries(self, seconds: float) -> KubeflowClient:
        """Return a client over the same connections that repeats failed requests for so long."""
        return KubeflowClient(self._api, seconds, self._renew_credentials)

    async def create(self, kind: ResourceKind, namespace: str, manifest: JSON, *, dry_run: bool = False) -> JSON:
        query = {"fieldValidation": "Strict"} if kind.strict else {}
        if dry_run:
            query["dryRun"] = "All"
        return await self._json("POST", kind.path(namespace), query=query, body=manifest)

    async def get(self, kind: ResourceKind, namespace: str, name: str) -> JSON:
        return await self._json("GET", kind.path(namespace, name))

    async def find(self, kind: ResourceKind, namespace: str, name: str) -> JSON | None:
        """Return the object, or None when there is none."""
        try:
            return await self.get(kind, namespace, name)
        except KubernetesApiError as error:
            if error.code == 404 and error.reason == "NotFound":  # and not a proxy's own
                return None
            raise

    async def list_all(
        self, kind: ResourceKind, namespace: str, *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[JSON], str]:
        """Read all pages; return the objects and the resourceVersion from which a watch continues."""
        items: list[JSON] = []
        version = ""
        all_pages = self.pages(kind, namespace, label_selector=label_selector, field_selector=field_selector)
        async with aclosing(all_pages) as pages:
            async for page, at in pages:
                items += page
                version = at
        return items, version

    async def pages(
        self,
        kind: ResourceKind,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        first: int | None = None,
    ) -> AsyncGenerator[tuple[Iterator[JSON], str], None]:
        """
        Yield page by page the objects, and the resourceVersion from which a watch continues.

        :param first: objects of the first page; each other one has as many as fit into ``PAGE_BYTES``.
        :raises KubernetesApiError: code 410 when the caller took so long that the rest of the list is gone.
        """
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": first or FIRST_PAGE}
        while True:
            page, size = await self._send(Page, "GET", kind.path(namespace), query=query)
            items = page.items or []
            yield map(msgspec.json.decode, items), page.metadata.get("resourceVersion", "")
            if not page.metadata.get("continue"):
                return
            fitting = PAGE_BYTES * len(items) // size
            query |= {"continue": page.metadata["continue"], "limit": min(max(fitting, 1), MAX_PAGE)}

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

    async def delete(
        self,
        kind: ResourceKind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> bool:
        """
        Delete the object and, in the background, all it owns.

        :param uid: delete only this incarnation; another object of the same name is left alone.
        :param resource_version: delete it only as it was when it was read.
        :returns: False when it was gone already, or is another incarnation or version by now.
        """
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        wanted = {"uid": uid, "resourceVersion": resource_version}
        options["preconditions"] = {key: value for key, value in wanted.items() if value is not None}
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
        limits = aiohttp.ClientTimeout(sock_connect=30, sock_read=timeout_seconds + OVERDUE_SECONDS)
        async with self._open("GET", kind.path(namespace), query=query, limits=limits) as response:
            _keep_alive(response)
            try:
                async for line in response.content:
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        raise status_error(event["object"], self._host)
                    yield event["type"], event["object"]
            finally:
                # Left in the middle, it is cut: a polite end of TLS would take longer than a worker's event loop lives.
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()

    async def read_log(
        self, namespace: str, name: str, container: str, *, tail_lines: int, previous: bool = False
    ) -> str:
        """Return the last lines that a container printed, or its ``previous`` instance before it was started again."""
        query = {"container": container, "tailLines": tail_lines, "previous": str(previous).lower()}
        async with self._open("GET", pod.KIND.path(namespace, name) + "/log", query=query) as response:
            return (await response.read()).decode(errors="replace")

    async def _json(self, method: str, path: str, **request: Any) -> JSON:
        body, _ = await self._send(dict[str, Any], method, path, **request)
        return body

    async def _send(self, type_: type[Answer], method: str, path: str, **request: Any) -> tuple[Answer, int]:
        """Return the answer and how many bytes it has; ``request`` are arguments of ``_open``."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, KubernetesApiError) and error.transient),
            wait=_back_off,
            stop=tenacity.stop_after_delay(self._retry_timeout),
            before_sleep=tenacity.before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                async with self._open(method, path, **request) as response:
                    content = await response.read()
                    body = msgspec.json.decode(content, type=type_)
        return body, len(content)

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
                    raise await read_error(response, self._host)
                yield response
        except (aiohttp.ClientError, OSError, ValueError, msgspec.DecodeError) as error:
            # DecodeError: a body that is no JSON, or was cut off. Also raised while the caller reads it.
            raise self._unreachable(error) from (None if carries_secret(str(error)) else error)

    def _unreachable(self, error: BaseException) -> KubernetesApiError:
        told = redacted(str(error), ()) or type(error).__name__
        return KubernetesApiError(
            f"The Kubernetes API server at {self._host} cannot be reached: {told}. Fix: check that "
            f"it runs and that the connection or `config_file` of this task points to it",
            reason="Unreachable",
        )


_EXPONENTIAL = tenacity.wait_random_exponential(multiplier=0.5, max=10)


def _back_off(state: tenacity.RetryCallState) -> float:
    """Wait as long as the server asked for, if that is longer than our own back-off."""
    error = state.outcome.exception() if state.outcome else None
    return max(_EXPONENTIAL(state), getattr(error, "retry_after", 0.0))


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection is not None else None
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):  # macOS lacks one of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
