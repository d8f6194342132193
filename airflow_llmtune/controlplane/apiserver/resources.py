"""The verbs on resources: from an HTTP request to a call of the registry and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_llmtune.controlplane.apiserver.errors import ApiError, bad_request, method_not_allowed
from airflow_llmtune.controlplane.apiserver.field_validation import unknown_field_warnings
from airflow_llmtune.controlplane.apiserver.kinds import (
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.list_options import check_watch_options
from airflow_llmtune.controlplane.apiserver.lists import list_document, read_page
from airflow_llmtune.controlplane.apiserver.logs import PodLogs, read_options
from airflow_llmtune.controlplane.apiserver.metadata import named
from airflow_llmtune.controlplane.apiserver.negotiation import Body, accepted_format
from airflow_llmtune.controlplane.apiserver.openapi import OpenApi
from airflow_llmtune.controlplane.apiserver.patch import APPLY
from airflow_llmtune.controlplane.apiserver.responses import LaterAnswer, dump, json_response
from airflow_llmtune.controlplane.apiserver.scales import patched, rescaled, scale_of
from airflow_llmtune.controlplane.apiserver.streaming import OpenStreams, StreamedAnswer, error_line, watch_body
from airflow_llmtune.controlplane.apiserver.tables import table
from airflow_llmtune.controlplane.apiserver.targets import delete_options, flag, integer, is_dry_run

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from airflow_llmtune.controlplane.apiserver.faults import Fault
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.apiserver.targets import Target
    from airflow_llmtune.controlplane.apiserver.watch import WatchEvent
    from airflow_llmtune.controlplane.clock import Clock

# A delete answers with the object itself for these, with a Status for all others.
_RETURNED_WHEN_DELETED = frozenset({POD, SERVICE, SERVICE_ACCOUNT, PERSISTENT_VOLUME_CLAIM})

_ORPHANS_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them "
    "or set propagationPolicy=Orphan to suppress this warning"
)
# Rows that are printed, and objects that are deleted, without letting go of the event loop.
_LARGE_TABLE = 200
_PORTION = 50

# A watch without a timeout lasts as long as on a real server, whose limit is drawn between 30 and 60 minutes.
_LONGEST_WATCH_SECONDS = 2700.0


class Resources:
    """Stateless between requests but for the streams that are open."""

    def __init__(self, registry: Registry, logs: PodLogs, streams: OpenStreams, openapi: OpenApi, clock: Clock) -> None:
        self._registry = registry
        self._kinds = registry.kinds
        self._openapi = openapi
        self._logs = logs
        self._streams = streams
        self._clock = clock

    def answer(self, request: Request, target: Target, body: Body, fault: Fault | None) -> ASGIApp:
        """What is small is done by the time this returns; a stream and what takes long run with the answer."""
        if target.subresource == "log":
            return self._log(request, target)
        if target.subresource == "scale" and _allows(request.method, target):
            return self._scale(request, target, body)
        if request.method == "GET" and not target.subresource and flag(request.query_params, "watch"):
            return self._watch(request, target, fault)
        verbs: dict[str, Callable[[Request, Target, Body], ASGIApp]] = {
            "GET": self._get if target.name else self._list,
            "PUT": self._update,
            "PATCH": self._patch,
            "POST": self._create,
            "DELETE": self._delete if target.name else self._delete_collection,
        }
        verb = verbs.get(request.method)
        if verb is None or not _allows(request.method, target):
            raise method_not_allowed()
        return verb(request, target, body)

    def _get(self, request: Request, target: Target, body: Body) -> Response:  # noqa: ARG002  one signature
        obj = self._registry.get(target.kind, target.namespace, target.name)
        return self._printed(request, target.kind, obj)

    def _list(self, request: Request, target: Target, body: Body) -> ASGIApp:  # noqa: ARG002  one signature
        as_table = accepted_format(request.headers.get("accept", "")).table
        page = read_page(self._registry.store, target, request.query_params)
        if not as_table:
            return json_response(request, list_document(target.kind, page))
        include, now = request.query_params.get("includeObject", "Metadata"), self._clock()
        columns = self._kinds.columns(target.kind)

        def printed() -> bytes:
            return dump(table(columns, (entry.view for entry in page.entries), page.metadata, include, now))

        if len(page.entries) < _LARGE_TABLE:
            return json_response(request, printed())

        async def printed_in_a_thread() -> Response:
            return json_response(request, await asyncio.to_thread(printed))

        return LaterAnswer(printed_in_a_thread)

    def _create(self, request: Request, target: Target, body: Body) -> Response:
        obj = body.object()
        warnings = self._warnings(request, target, obj)
        created = self._registry.create(target.kind, obj, target.namespace, dry_run=_dry_run(request))
        return self._printed(request, target.kind, created, code=201, warnings=warnings)

    def _update(self, request: Request, target: Target, body: Body) -> Response:
        obj = body.object()
        warnings = self._warnings(request, target, obj)
        named(obj, target.name)
        if target.namespace is not None:
            _match_namespace(obj["metadata"], target.namespace)
        write = self._registry.update_status if target.subresource else self._registry.update
        updated = write(target.kind, obj, dry_run=_dry_run(request), manager=_manager(request))
        return self._printed(request, target.kind, updated, warnings=warnings)

    def _patch(self, request: Request, target: Target, body: Body) -> Response:
        patch = body.value()
        warnings = self._warnings(request, target, patch)
        if body.media_type == APPLY:
            return self._apply(request, target, patch, warnings)
        patched = self._registry.patch(
            target.kind,
            target.namespace,
            target.name,
            body.media_type,
            patch,
            subresource=target.subresource,
            dry_run=_dry_run(request),
            manager=_manager(request),
        )
        return self._printed(request, target.kind, patched, warnings=warnings)

    def _apply(self, request: Request, target: Target, applied: Any, warnings: list[str]) -> Response:
        query = request.query_params
        if not query.get("fieldManager"):
            raise bad_request("fieldManager: Required value: is required for apply patch")
        existed = self._registry.find(target.kind, target.namespace, target.name) is not None
        obj = self._registry.apply(
            target.kind,
            target.namespace,
            target.name,
            applied,
            manager=query["fieldManager"],
            force=flag(query, "force"),
            subresource=target.subresource,
            dry_run=_dry_run(request),
        )
        return self._printed(request, target.kind, obj, code=200 if existed else 201, warnings=warnings)

    def _scale(self, request: Request, target: Target, body: Body) -> Response:
        """The object in its short form, which only knows its size."""
        obj = self._registry.get(target.kind, target.namespace, target.name)
        if request.method != "GET":
            patch = request.method == "PATCH"
            new = patched(obj, body.media_type, body.value()) if patch else rescaled(obj, body.object())
            obj = self._registry.update(target.kind, new, dry_run=_dry_run(request), manager=_manager(request))
        return json_response(request, dump(scale_of(obj)))

    def _warnings(self, request: Request, target: Target, sent: Any) -> list[str]:
        """About fields that the kind does not have, and about a version that is going away."""
        version = self._kinds.version(target.kind)
        deprecated = [version.warning] if version is not None and version.warning else []
        level = request.query_params.get("fieldValidation", "")
        return deprecated + unknown_field_warnings(target.kind, sent, self._openapi.schema(target.kind), level)

    def _delete(self, request: Request, target: Target, body: Body) -> Response:
        kind = target.kind
        deleted, warnings = self._delete_one(request, target, body, target.name)
        gone = self._registry.store.get(kind, target.namespace or "", target.name) is None
        if gone and kind not in _RETURNED_WHEN_DELETED:
            return json_response(request, dump(_success(kind, deleted)), warnings=warnings)
        return json_response(request, dump(deleted), warnings=warnings)

    def _delete_one(self, request: Request, target: Target, body: Body, name: str) -> tuple[dict[str, Any], list[str]]:
        sent = body.options()
        query = request.query_params
        options = delete_options(target.kind, query, query.getlist("dryRun"), sent)
        deleted = self._registry.delete(
            target.kind,
            target.namespace,
            name,
            propagation=options.propagation,
            uid=options.uid,
            resource_version=options.resource_version,
            grace_period_seconds=options.grace_period_seconds,
            dry_run=options.dry_run,
        )
        return deleted, [_ORPHANS_WARNING] if target.kind is JOB and options.is_default else []

    def _delete_collection(self, request: Request, target: Target, body: Body) -> ASGIApp:
        page = read_page(self._registry.store, target, request.query_params)

        async def deleted() -> Response:
            for index, entry in enumerate(page.entries):
                if index % _PORTION == _PORTION - 1:
                    await asyncio.sleep(0)  # Others are answered meanwhile.
                try:
                    self._delete_one(request, target, body, entry.key[1])
                except ApiError as error:
                    if error.code != 404:
                        raise
            return json_response(request, list_document(target.kind, page))

        return LaterAnswer(deleted)

    def _watch(self, request: Request, target: Target, fault: Fault | None) -> ASGIApp:
        query = request.query_params
        check_watch_options(query)
        as_table = accepted_format(request.headers.get("accept", "")).table
        field_selector = query.get("fieldSelector", "")
        if target.name:
            field_selector = f"metadata.name={target.name}"
        try:
            watch = self._registry.watch(
                target.kind,
                target.namespace,
                resource_version=query.get("resourceVersion", ""),
                label_selector=query.get("labelSelector", ""),
                field_selector=field_selector,
                bookmarks=flag(query, "allowWatchBookmarks"),
                send_initial_events=flag(query, "sendInitialEvents"),
                timeout_seconds=integer(query, "timeoutSeconds") or _LONGEST_WATCH_SECONDS,
            )
        except ApiError as error:
            if error.code != 410:
                raise
            # As on a real server: a version that is too old is told in the stream, not by the HTTP status.
            return json_response(request, error_line(error))
        include = query.get("includeObject", "Metadata")
        columns = self._kinds.columns(target.kind)

        def print_row(event: WatchEvent) -> bytes:
            if event.type == "BOOKMARK":
                return event.line
            obj = event.object
            metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            row = table(columns, [obj], metadata, include, self._clock())
            return dump({"type": event.type, "object": row}) + b"\n"

        body = watch_body(watch, print_row if as_table else None, fault)
        return StreamedAnswer(body, "application/json", self._streams)

    def _log(self, request: Request, target: Target) -> ASGIApp:
        if request.method != "GET":
            raise method_not_allowed()
        query = request.query_params
        options = read_options(query, target.name, self._clock())
        text = self._logs.open_log(target.namespace or "", target.name, query.get("container", ""), options)
        return StreamedAnswer(text, "text/plain", self._streams)

    def _printed(
        self, request: Request, kind: Kind, obj: dict[str, Any], *, code: int = 200, warnings: Sequence[str] = ()
    ) -> Response:
        if not accepted_format(request.headers.get("accept", "")).table:
            return json_response(request, dump(obj), code=code, warnings=warnings)
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        include = request.query_params.get("includeObject", "Metadata")
        printed = table(self._kinds.columns(kind), [obj], metadata, include, self._clock())
        return json_response(request, dump(printed), code=code, warnings=warnings)


def _allows(method: str, target: Target) -> bool:
    if method in {"POST", "DELETE"} and target.kind.namespaced and target.namespace is None:
        return False
    if target.subresource:
        return method in {"GET", "PUT", "PATCH"}
    return bool(target.name) is (method in {"PUT", "PATCH"}) or method in {"GET", "DELETE"}


def _dry_run(request: Request) -> bool:
    return is_dry_run(request.query_params.getlist("dryRun"))


def _manager(request: Request) -> str:
    """As the client calls itself, or else as its program is called."""
    named = request.query_params.get("fieldManager")
    return named or request.headers.get("user-agent", "").split("/")[0] or "unknown"


def _match_namespace(metadata: dict[str, Any], expected: str) -> None:
    given = metadata["namespace"] = metadata.get("namespace") or expected
    if given != expected:
        raise bad_request(f"the namespace of the object ({given}) does not match the namespace on the URL ({expected})")


def _success(kind: Kind, deleted: dict[str, Any]) -> dict[str, Any]:
    details = {"name": deleted["metadata"]["name"], "kind": kind.plural, "uid": deleted["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
