"""The verbs on resources: from an HTTP request to a call of the registry and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_llmtune.controlplane.apiserver.errors import ApiError, bad_request, method_not_allowed
from airflow_llmtune.controlplane.apiserver.kinds import (
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.lists import list_document, read_page
from airflow_llmtune.controlplane.apiserver.logs import PodLogs
from airflow_llmtune.controlplane.apiserver.metadata import named
from airflow_llmtune.controlplane.apiserver.negotiation import (
    accepted_format,
    content_type,
    decode,
    decode_object,
    decode_options,
)
from airflow_llmtune.controlplane.apiserver.patch import APPLY
from airflow_llmtune.controlplane.apiserver.responses import dump, json_response
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
# A watch without a timeout lasts as long as on a real server, whose limit is drawn between 30 and 60 minutes.
_LONGEST_WATCH_SECONDS = 2700.0


class Resources:
    """Stateless between requests but for the streams that are open."""

    def __init__(self, registry: Registry, logs: PodLogs, streams: OpenStreams, clock: Clock) -> None:
        self._registry = registry
        self._logs = logs
        self._streams = streams
        self._clock = clock

    def answer(self, request: Request, target: Target, body: bytes, fault: Fault | None) -> ASGIApp:
        """Everything is done by the time this returns, except sending what streams."""
        if target.subresource == "log":
            return self._log(request, target)
        if request.method == "GET" and not target.subresource and flag(request.query_params, "watch"):
            return self._watch(request, target, fault)
        verbs: dict[str, Callable[[Request, Target, bytes], Response]] = {
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

    def _get(self, request: Request, target: Target, body: bytes) -> Response:  # noqa: ARG002  one signature
        obj = self._registry.get(target.kind, target.namespace, target.name)
        return self._printed(request, target.kind, obj)

    def _list(self, request: Request, target: Target, body: bytes) -> Response:  # noqa: ARG002  one signature
        as_table = accepted_format(request.headers.get("accept", "")).table
        page = read_page(self._registry.store, target, request.query_params)
        if not as_table:
            return json_response(request, list_document(target.kind, page))
        objects = [entry.view for entry in page.entries]
        include = request.query_params.get("includeObject", "Metadata")
        return json_response(request, dump(table(target.kind, objects, page.metadata, include, self._clock())))

    def _create(self, request: Request, target: Target, body: bytes) -> Response:
        obj = decode_object(body, request.headers.get("content-type", ""))
        created = self._registry.create(target.kind, obj, target.namespace, dry_run=_dry_run(request))
        return self._printed(request, target.kind, created, code=201)

    def _update(self, request: Request, target: Target, body: bytes) -> Response:
        obj = decode_object(body, request.headers.get("content-type", ""))
        named(obj, target.name)
        if target.namespace is not None:
            _match_namespace(obj["metadata"], target.namespace)
        write = self._registry.update_status if target.subresource else self._registry.update
        return self._printed(request, target.kind, write(target.kind, obj, dry_run=_dry_run(request)))

    def _patch(self, request: Request, target: Target, body: bytes) -> Response:
        sent = request.headers.get("content-type", "")
        patch_type = content_type(sent)
        if patch_type == APPLY and not request.query_params.get("fieldManager"):
            raise bad_request("fieldManager: Required value: is required for apply patch")
        existed = self._registry.find(target.kind, target.namespace, target.name) is not None
        patched = self._registry.patch(
            target.kind,
            target.namespace,
            target.name,
            patch_type,
            decode(body, sent),
            subresource=target.subresource,
            dry_run=_dry_run(request),
        )
        return self._printed(request, target.kind, patched, code=200 if existed else 201)

    def _delete(self, request: Request, target: Target, body: bytes) -> Response:
        kind = target.kind
        deleted, warning = self._delete_one(request, target, body, target.name)
        gone = self._registry.store.get(kind, target.namespace or "", target.name) is None
        if gone and kind not in _RETURNED_WHEN_DELETED:
            return json_response(request, dump(_success(kind, deleted)), warning=warning)
        return json_response(request, dump(deleted), warning=warning)

    def _delete_one(self, request: Request, target: Target, body: bytes, name: str) -> tuple[dict[str, Any], str]:
        sent = decode_options(body, request.headers.get("content-type", ""))
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
        return deleted, _ORPHANS_WARNING if target.kind is JOB and options.is_default else ""

    def _delete_collection(self, request: Request, target: Target, body: bytes) -> Response:
        page = read_page(self._registry.store, target, request.query_params)
        for entry in page.entries:
            try:
                self._delete_one(request, target, body, entry.key[1])
            except ApiError as error:
                if error.code != 404:
                    raise
        return json_response(request, list_document(target.kind, page))

    def _watch(self, request: Request, target: Target, fault: Fault | None) -> ASGIApp:
        query = request.query_params
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

        def print_row(event: WatchEvent) -> bytes:
            if event.type == "BOOKMARK":
                return event.line
            obj = event.object
            metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            row = table(target.kind, [obj], metadata, include, self._clock())
            return dump({"type": event.type, "object": row}) + b"\n"

        body = watch_body(watch, print_row if as_table else None, fault)
        return StreamedAnswer(body, "application/json", self._streams)

    def _log(self, request: Request, target: Target) -> ASGIApp:
        if request.method != "GET":
            raise method_not_allowed()
        query = request.query_params
        container, tail_lines = query.get("container", ""), integer(query, "tailLines")
        where = (target.namespace or "", target.name, container)
        follow = flag(query, "follow")
        # Read also when following, if only nothing: a refusal must come before the answer has begun.
        text = self._logs.read_log(
            *where,
            tail_lines=0 if follow else tail_lines,
            limit_bytes=integer(query, "limitBytes"),
            previous=flag(query, "previous"),
        )
        if not follow:
            return Response(text, media_type="text/plain")
        followed = self._logs.follow_log(*where, tail_lines=tail_lines)
        return StreamedAnswer(followed, "text/plain", self._streams)

    def _printed(self, request: Request, kind: Kind, obj: dict[str, Any], *, code: int = 200) -> Response:
        if not accepted_format(request.headers.get("accept", "")).table:
            return json_response(request, dump(obj), code=code)
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        include = request.query_params.get("includeObject", "Metadata")
        return json_response(request, dump(table(kind, [obj], metadata, include, self._clock())), code=code)


def _allows(method: str, target: Target) -> bool:
    if method in {"POST", "DELETE"} and target.kind.namespaced and target.namespace is None:
        return False
    if target.subresource:
        return method in {"GET", "PUT", "PATCH"}
    return bool(target.name) is (method in {"PUT", "PATCH"}) or method in {"GET", "DELETE"}


def _dry_run(request: Request) -> bool:
    return is_dry_run(request.query_params.getlist("dryRun"))


def _match_namespace(metadata: dict[str, Any], expected: str) -> None:
    given = metadata.setdefault("namespace", expected)
    if given != expected:
        raise bad_request(f"the namespace of the object ({given}) does not match the namespace on the URL ({expected})")


def _success(kind: Kind, deleted: dict[str, Any]) -> dict[str, Any]:
    details = {"name": deleted["metadata"]["name"], "kind": kind.plural, "uid": deleted["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
